-- include: blacklist
-- Ends one session, and returns whether it was there and its entry's sequence number: its record and index entry go, and its revocation entry is written, whether or not there was a record. There are
-- no tombstones: a missing record is refused. The entry lives as long as the record demands, if that is longer than the caller knows:
-- the session may be of a service that issues tokens of a longer life, and has started a moment ago.
local function session_entry(handle)
  local raw = string.gsub(string.gsub(handle, '%-', ''), '%x%x', function(hex)
    return string.char(tonumber(hex, 16))
  end)
  return '\1' .. raw .. string.rep('\0', 8)
end

local function end_session(tag, handle, life, nonce, now)
  local record = tag .. ':s:' .. handle
  local user, expires, its_life = unpack(redis.call('HMGET', record, 'user', 'idle_exp', 'life'))
  if user then
    redis.call('DEL', record)
    redis.call('ZREM', tag .. ':u:' .. user, handle)
  end
  local seq = blacklist(tag, session_entry(handle), math.max(life, tonumber(its_life or 0)), nonce, now)
  return user and tonumber(expires) > now, seq
end
