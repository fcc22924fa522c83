-- KEYS: the lease, the ring. ARGV: owner, milliseconds.
-- Answer: was it renewed; who had it; for how long still; the epoch in force.
local held = redis.call('GET', KEYS[1])
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if held and held ~= ARGV[1] then
    return {0, held, redis.call('PTTL', KEYS[1]), epoch}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {1, ARGV[1], tonumber(ARGV[2]), epoch}
