-- KEYS: the lease, the ring. ARGV: owner, owner and "!" (revoked). Answer: the epoch in force.
local held = redis.call('GET', KEYS[1])
if held == ARGV[1] or held == ARGV[2] then
    redis.call('DEL', KEYS[1])
end
return redis.call('HGET', KEYS[2], 'epoch')
