-- KEYS: the ring, the members. Answer: epoch, view, has a member's lease not run out.
local ring = redis.call('HMGET', KEYS[1], 'epoch', 'view')
return {ring[1], ring[2], redis.call('PTTL', KEYS[2]) > 0 and 1 or 0}
