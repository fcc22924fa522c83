-- KEYS: the lease, the ring, the members. ARGV: owner, milliseconds, "1": as a member, else "0".
-- Answer: was it renewed; who had it; for how long still; the epoch in force.
local held = redis.call('GET', KEYS[1])
local epoch = redis.call('HGET', KEYS[2], 'epoch')
if held and held ~= ARGV[1] then
    return {0, held, redis.call('PTTL', KEYS[1]), epoch}
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if ARGV[3] == '1' and redis.call('PTTL', KEYS[3]) < tonumber(ARGV[2]) then
    redis.call('SET', KEYS[3], '1', 'PX', ARGV[2])
end
return {1, ARGV[1], tonumber(ARGV[2]), epoch}
