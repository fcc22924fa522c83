-- KEYS: the ring. Answer: epoch, view.
return redis.call('HMGET', KEYS[1], 'epoch', 'view')
