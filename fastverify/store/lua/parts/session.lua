-- include: blacklist
-- Ends one session: its record and index entry go, and its revocation entry is added to those that the script is to write (blacklist.lua),
-- whether or not there was a record. There are no tombstones: a missing record is refused. The entry lives as long as the record demands,
-- if that is longer than the caller knows: the session may be of a service that issues tokens of a longer life, and has started a moment
-- ago. Where the session acts as other users, the entries of the sessions by which it does are added too: their records are in other
-- shards and end at their next refresh, and here their access tokens end with it. Returns the session's tenant and user, or nothing if it was not there or had expired.
local function session_entry(handle)
  local hex = string.gsub(handle, '%-', '')
  local word = function(first)
    return tonumber(string.sub(hex, first, first + 7), 16)
  end
  return struct.pack('>BI4I4I4I4I8', 1, word(1), word(9), word(17), word(25), 0)
end

local function end_session(tag, handle, life, now, entries)
  local record = tag .. ':s:' .. handle
  local user, tenant, expires, its_life, acts =
    unpack(redis.call('HMGET', record, 'user', 'tenant', 'idle_exp', 'life', 'acts'))
  if acts then
    for _, other in ipairs(redis.call('ZRANGEBYSCORE', tag .. ':acts:' .. handle, whole(now), '+inf')) do
      entries[#entries + 1] = { session_entry(other), math.max(life, tonumber(its_life or 0)) }
    end
    redis.call('DEL', tag .. ':acts:' .. handle)
  end
  if user then
    redis.call('DEL', record)
    redis.call('ZREM', tag .. ':u:' .. user, handle)
  end
  entries[#entries + 1] = { session_entry(handle), math.max(life, tonumber(its_life or 0)) }
  if user and tonumber(expires) > now then
    return tenant, user
  end
end
