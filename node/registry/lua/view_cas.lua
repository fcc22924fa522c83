-- KEYS: the ring. ARGV: the epoch expected ("0": none), the new one, its view.
-- Answer: was it taken; the epoch in force now. Epochs are compared as text: Lua's numbers end at 2^53.
local epoch = redis.call('HGET', KEYS[1], 'epoch')
if (epoch or '0') ~= ARGV[1] then
    return {0, epoch}
end
redis.call('HSET', KEYS[1], 'epoch', ARGV[2], 'view', ARGV[3])
return {1, ARGV[2]}
