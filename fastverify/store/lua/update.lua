#!lua
-- Sets and deletes fields of one session's record: the session data, or members of the payload. Values are opaque (Lua would turn
-- empty arrays into objects and large integers into neighbours), and one field a member makes concurrent merges lose nothing.
-- Whoever has judged the payload as a whole names the revision that it read: of two merges at once one reads anew.
-- KEYS[1] shard tag. ARGV: handle, revision of the payload that was read or '' if it does not matter, how many fields are set, their
--       names and values, then the names of those to delete.
-- Reply: handle, now, then the newest mark that concerns the session (ms, or 0) and the record's fields and values; nothing if it is
--        gone, and only CHANGED if it is of another revision.
-- include: time
-- include: record
local tag, handle, revision, sets = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local record, now = tag .. ':s:' .. handle, now_ms()
if not alive(tag, record, now) then
  return { handle, now }
end
if revision ~= '' then
  if (redis.call('HGET', record, 'rev') or '0') ~= revision then
    return { handle, now, 'CHANGED' }
  end
  redis.call('HINCRBY', record, 'rev', 1)
end
for i = 4, 3 + 2 * sets, 2 do
  redis.call('HSET', record, ARGV[i], ARGV[i + 1])
end
for i = 4 + 2 * sets, #ARGV do
  redis.call('HDEL', record, ARGV[i])
end
return { handle, now, newest_mark(tag, redis.call('HGET', record, 'tenant')), unpack(redis.call('HGETALL', record)) }
