#!lua
-- Sets and deletes fields of one session's record: the session data, or members of the payload. Values are opaque (Lua would turn
-- empty arrays into objects and large integers into neighbours), and one field a member makes concurrent merges lose nothing.
-- KEYS[1] shard tag. ARGV: handle, how many fields are set, their names and values, then the names of those to delete.
-- Reply: handle, now, then the record's fields and values (none if it is gone).
-- include: time
-- include: record
local tag, handle, sets = KEYS[1], ARGV[1], tonumber(ARGV[2])
local record, now = tag .. ':s:' .. handle, now_ms()
if not alive(tag, record, now) then
  return { handle, now }
end
for i = 3, 2 + 2 * sets, 2 do
  redis.call('HSET', record, ARGV[i], ARGV[i + 1])
end
for i = 3 + 2 * sets, #ARGV do
  redis.call('HDEL', record, ARGV[i])
end
return { handle, now, unpack(redis.call('HGETALL', record)) }
