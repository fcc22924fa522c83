-- KEYS: the hash of a user or room. ARGV: epoch (20 digits); what its field "" is to be; what it is
-- now ("*": anything, the hash is written anew); milliseconds; the number r of fields to remove; r
-- fields; then field, value, field, value …
-- Without fields, and with the mark as it is, the hash only lives on.
-- Answer: 0 done; 1 a later epoch has written; 2 the hash is not what we left; 3 it is none of ours.
local mark = redis.call('HGET', KEYS[1], '')
if mark and #mark ~= 37 then
    return 3
end
if mark and string.sub(mark, 1, 20) > ARGV[1] then
    return 1
end
if ARGV[3] == '*' then
    redis.call('DEL', KEYS[1])
elseif mark ~= ARGV[3] then
    return 2
end
local removed = tonumber(ARGV[5])
for i = 6, 5 + removed do
    redis.call('HDEL', KEYS[1], ARGV[i])
end
for i = 6 + removed, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('HSET', KEYS[1], '', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 0
