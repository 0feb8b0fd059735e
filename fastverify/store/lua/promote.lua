#!lua
-- A guest's session is to be followed by a user's: says by which one, and the same one however often it is asked, also for a while after
-- the guest's session has ended; so a sign-in whose reply was lost can be sent again. Another user takes over as long as it lives.
-- KEYS[1] shard tag. ARGV: handle, user, handle for the session that follows if none is set yet, for how long it is remembered (ms).
-- Reply: handle, now, handle of the session that follows, then the guest's record's fields and values, none if it has ended; only the
--        first two if it has ended, and not for this user.
-- Repeatable.
-- include: time
-- include: text
-- include: record
local tag, handle, user, heir = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local record, memo, now = tag .. ':s:' .. handle, tag .. ':heir:' .. handle, now_ms()
local whose, its = unpack(redis.call('HMGET', memo, 'user', 'handle'))
if whose == user then
  heir = its
end
if alive(tag, record, now) then
  redis.call('HSET', memo, 'user', user, 'handle', heir)
  redis.call('PEXPIREAT', memo, whole(now + tonumber(ARGV[4])))
  return { handle, now, heir, unpack(redis.call('HGETALL', record)) }
end
if whose == user then
  return { handle, now, heir }
end
return { handle, now }
