#!lua flags=allow-oom
-- Takes back revocations that this primary lacks from a follower that knew them: a failover lost them. An entry that another follower
-- has brought already is not written again. A session that the failover brought back ends.
-- KEYS[1] shard tag. ARGV: nonce, then entry and expiry (s) of each. Reply: those that were written.
-- Repeatable.
-- include: time
-- include: session
local tag, nonce, now, written, entries = KEYS[1], ARGV[1], now_ms(), {}, {}

local function handle_of(entry)
  local hex = string.gsub(string.sub(entry, 2, 17), '.', function(byte)
    return string.format('%02x', string.byte(byte))
  end)
  return string.gsub(hex, '^(%x%x%x%x%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x%x%x%x)(%x+)$', '%1-%2-%3-%4-%5')
end

-- Whether an entry is there for at least as long.
local function is_known(entry, life)
  local windows = redis.call('ZRANGEBYSCORE', tag .. ':windows', whole(window_end(now, life)), '+inf')
  for _, window in ipairs(windows) do
    if redis.call('SISMEMBER', window_set(tag, window), entry) == 1 then
      return true
    end
  end
  return false
end

for i = 2, #ARGV, 2 do
  local entry, life = ARGV[i], tonumber(ARGV[i + 1]) - now / 1000
  if life > 0 and not is_known(entry, life) then
    if string.byte(entry) == 1 then
      end_session(tag, handle_of(entry), life, now, entries)
    else
      entries[#entries + 1] = { entry, life }
    end
    written[#written + 1] = entry
  end
end
if #written > 0 then
  blacklist(tag, entries, nonce, now)
  announce(tag)
end
return written
