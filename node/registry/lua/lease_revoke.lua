-- KEYS: the lease to revoke, that of who asks, the ring. ARGV: owner of the first, of the second.
-- Answer: may who asks; the epoch in force. One's own lease cannot be renewed after this either way.
local epoch = redis.call('HGET', KEYS[3], 'epoch')
if redis.call('GET', KEYS[2]) ~= ARGV[2] then
    return {0, epoch}
end
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[1] .. '!', 'KEEPTTL')
end
return {1, epoch}
