-- The journals of a session's turns, for the scripts that need them; follows `prelude.lua`.

-- Returns the functions of the journal. An entry's field `t` is the turn, `e` the event, `n` and `x` the number of a
-- committed turn and the session's end, and `w` why a turn ended that no gateway ended. If another gateway may take a
-- turn over, its request precedes its entries, as an entry of the turn id with `?` before it. META's `journals` lists
-- the turns in the stream, oldest first: turn, fencing token of the newest entry, its sequence under that token, ids of
-- the first and the newest entry, bytes of all, and when the turn ended (0: not yet). `watchers` wait for an entry.
local MAX_JOURNALS, ENTRY_OVERHEAD = 16, 64
local function journal()
  local records = {}
  for turn, token, sequence, first, last, bytes, ended in string.gmatch(
    redis.call('HGET', META, 'journals') or '', '([^,;]+),(%d+),(%d+),([%d-]+),([%d-]+),(%d+),(%d+)') do
    records[#records + 1] = {
      turn = turn, token = tonumber(token), sequence = tonumber(sequence), first = first, last = last,
      bytes = tonumber(bytes), ended = tonumber(ended),
    }
  end

  local function of(turn_id)
    for _, record in ipairs(records) do
      if record.turn == turn_id then return record end
    end
    return nil
  end

  -- Returns the record of a turn, creating it if missing, for which old journals are removed.
  local function begun(turn_id, token, keep_ms)
    local record = of(turn_id)
    if record then return record end
    while records[1] and (#records >= MAX_JOURNALS or records[1].ended > 0 and records[1].ended <= now - keep_ms) do
      table.remove(records, 1)
    end
    record = {turn = turn_id, token = token, sequence = 0, bytes = 0, ended = 0}
    records[#records + 1] = record
    return record
  end

  -- Whether there is room for this many more bytes of a turn, after removing older journals.
  local function room(record, bytes, max_bytes)
    local total = bytes
    for _, other in ipairs(records) do total = total + other.bytes end
    while total > max_bytes and records[1] ~= record do total = total - table.remove(records, 1).bytes end
    return total <= max_bytes
  end

  local function add(record, token, event, ...)
    if record.token ~= token then record.token, record.sequence = token, 0 end
    record.last = redis.call('XADD', JOURNAL, '*', 't', record.turn, 'e', event, ...)
    record.first = record.first or record.last
    record.sequence, record.bytes = record.sequence + 1, record.bytes + #event + ENTRY_OVERHEAD
  end

  -- Stores what another gateway needs to continue the turn, before its entries.
  local function hold_request(record, request)
    record.first = redis.call('XADD', JOURNAL, '*', 't', '?' .. record.turn, 'e', request)
    record.last, record.bytes = record.first, record.bytes + #request + ENTRY_OVERHEAD
  end

  local function save()
    local texts = {}
    for index, one in ipairs(records) do
      texts[index] = table.concat({
        one.turn, digits(one.token), digits(one.sequence), one.first, one.last, digits(one.bytes), digits(one.ended),
      }, ',')
    end
    redis.call('HSET', META, 'journals', table.concat(texts, ';'))
    redis.call('XTRIM', JOURNAL, 'MINID', records[1].first)
    local watchers = redis.call('HGET', META, 'watchers')
    if not watchers then return end
    redis.call('HDEL', META, 'watchers')
    local wake = waiters().wake
    for waiter in string.gmatch(watchers, '[^;]+') do wake(waiter) end
  end

  -- Returns where those of a turn's events begin that were not added before, and the bytes of those; the first event is
  -- the argument `from`, has the number `first` under the turn's token, and `to` is the last one.
  local function new(record, token, first, from, to)
    local known, bytes = record.token == token and record.sequence or 0, 0
    from = from + math.max(known - first + 1, 0)
    for index = from, to do bytes = bytes + #ARGV[index] + ENTRY_OVERHEAD end
    return from, bytes
  end

  -- Ends a turn's journal. A damaged journal must not prevent the end of its turn.
  local function finish(record, token, keep_ms, event, ...)
    if not pcall(add, record, token, event, ...) then return end
    record.ended = now
    save()
    redis.call('PEXPIREAT', JOURNAL, digits(math.min(now + keep_ms, redis.call('PEXPIRETIME', META))))
  end

  return {
    of = of, begun = begun, room = room, new = new, add = add, save = save, hold_request = hold_request,
    finish = finish,
  }
end

-- Ends the journal of a turn, if it has one, for the holder of its lease or the last writer.
local function end_journal(is_held, turn_id, token, event, keep_ms, ...)
  if event == '' then return end
  local functions = journal()
  local record = functions.of(turn_id)
  if not record or record.ended > 0 or not is_held and record.token ~= token then return end
  functions.finish(record, token, keep_ms, event, ...)
end

-- Ends the journal of a turn that no gateway ends, if it has one: why is `interrupted`, `lost`, `cancelled`, `given_up`.
local function end_unheard(turn_id, why, keep_ms)
  local functions = journal()
  local record = functions.of(turn_id)
  if record and record.ended == 0 then functions.finish(record, record.token, keep_ms, '', 'w', why) end
end

-- META's `pickup` is there for a turn that another gateway may take over, or that is to be cancelled: for how long its
-- session waits for that behind its lease, how many gateways have run it, how many of them were lost, and whether its
-- lease was handed over, and the turn cancelled (0 or 1).
local function pickup_of(session)
  local ms, attempt, lost_gateways, released, cancelled = string.match(
    session.pickup or '0,1,0,0,0', '^(%d+),(%d+),(%d+),(%d+),(%d+)$')
  return {
    ms = tonumber(ms), attempt = tonumber(attempt), lost = tonumber(lost_gateways), released = released == '1',
    cancelled = cancelled == '1',
  }
end

local function save_pickup(pickup)
  redis.call('HSET', META, 'pickup', table.concat({
    digits(pickup.ms), digits(pickup.attempt), digits(pickup.lost), pickup.released and 1 or 0,
    pickup.cancelled and 1 or 0,
  }, ','))
end

local function is_cancelled(session)
  return session.pickup and pickup_of(session).cancelled
end
