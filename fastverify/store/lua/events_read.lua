#!lua flags=no-writes
-- Events after the one that a reader has read last. That one names its primary: where it is gone, or is another's, a reader goes on behind
-- the newest that it can know; a failover has then lost some, or too many came.
-- KEYS[1] tag. ARGV: seq of the event read last, 0 if there was none yet, or '' for the oldest that is kept; its primary; most to return.
-- Reply: 1 if the reader may have missed some or 0, then seq and fields of each.
local stream, seq, primary, most = KEYS[1] .. ':events', ARGV[1], ARGV[2], ARGV[3]

local function primary_of(item)
  return item[2][6]
end

-- The newest event up to the reader's place that its primary wrote; it has read all of these.
local function newest_known()
  local stop = seq .. '-0'
  while true do
    local items = redis.call('XREVRANGE', stream, stop, '-', 'COUNT', 100)
    for _, item in ipairs(items) do
      if primary_of(item) == primary then
        return item[1]
      end
    end
    if #items < 100 then
      return nil
    end
    stop = '(' .. items[#items][1]
  end
end

local function is_whole()
  local about = redis.call('EXISTS', stream) == 1 and redis.call('XINFO', 'STREAM', stream) or {}
  local length, added
  for i = 1, #about, 2 do
    if about[i] == 'length' then
      length = about[i + 1]
    elseif about[i] == 'entries-added' then
      added = about[i + 1]
    end
  end
  return length == added
end

local from, missed = '-', 0
if seq == '0' then
  missed = is_whole() and 0 or 1
elseif seq ~= '' then
  local known = newest_known()
  from = known and '(' .. known or '-'
  missed = known == seq .. '-0' and 0 or 1
end
local reply = { missed }
for _, item in ipairs(redis.call('XRANGE', stream, from, '+', 'COUNT', most)) do
  reply[#reply + 1] = { string.match(item[1], '^%d+'), item[2] }
end
return reply
