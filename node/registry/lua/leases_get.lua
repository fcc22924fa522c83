-- KEYS: the ring, leases. Answer: the epoch in force, then of each lease its value and how long still.
local answer = {redis.call('HGET', KEYS[1], 'epoch')}
for i = 2, #KEYS do
    answer[#answer + 1] = redis.call('GET', KEYS[i])
    answer[#answer + 1] = redis.call('PTTL', KEYS[i])
end
return answer
