-- KEYS: the hash of a user or room. ARGV: epoch (20 digits), what its field "" is, milliseconds.
-- Answer: as record_write's.
local mark = redis.call('HGET', KEYS[1], '')
if mark == ARGV[2] then
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return 0
end
if mark and #mark ~= 37 then
    return 3
end
if mark and string.sub(mark, 1, 20) > ARGV[1] then
    return 1
end
return 2
