#!lua
-- Sessions whose access tokens have been used a moment ago, by anybody's word. Written once in a while only, whatever number of processes
-- say so, and never back. It is beside `seen_at`, which is of refreshes, and which scripts go by. What has ended stays so.
-- KEYS[1] shard tag. ARGV: ms that lie between two times at least, handles... Reply: the handles that it was written of.
-- Repeatable.
-- include: time
-- include: text
-- include: record
local tag, span, now, written = KEYS[1], tonumber(ARGV[1]), now_ms(), {}
for i = 2, #ARGV do
  local record = tag .. ':s:' .. ARGV[i]
  if alive(tag, record, now) then
    local seen_at, used_at = unpack(redis.call('HMGET', record, 'seen_at', 'used_at'))
    if now - math.max(tonumber(seen_at), tonumber(used_at or 0)) >= span then
      redis.call('HSET', record, 'used_at', whole(now))
      written[#written + 1] = ARGV[i]
    end
  end
end
return written
