/** One turn with an agent: the request, and the answer as it arrives. */
import { call, events, send } from './api.js';

/** The body of a chat completion. @param {Target} target @param {any} what messages, or approvals */
export function bodyOf(target, what) {
  return {
    model: target.revision ? `${target.agent}@${target.revision}` : target.agent,
    ...what,
    ...(target.session ? { session_id: target.session } : {}),
    ...(target.user ? { user_id: target.user } : {}),
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** @param {any} body @param {AbortSignal} [signal] */
export const preview = (body, signal) => call('POST', '/v1/chat/completions:preview', { body, signal });

/** @param {any} asked @param {any} body @returns {Turn} */
export const newTurn = (asked, body) => ({
  asked, body, text: '', reasoning: '', refusal: '', calls: [], approved: [], pending: [], missing: [], busy: true, error: null, first: null, total: null,
  usage: null, revision: '', provider: '', session: '', expires: '', id: '', prompt: null, finish: '',
});

/** @param {Turn} turn @param {any} event */
export function take(turn, event) {
  turn.id ||= event.id ?? '';
  if (event.usage) turn.usage = event.usage;
  const note = event.parley;
  /** @type {Act} */ const known = (id) => turn.calls.find((one) => one.id === id);
  if (note?.event === 'tool_call_started' && !known(note.tool_call_id)) {
    turn.calls.push({ id: note.tool_call_id, name: note.name, arguments: note.arguments, server: note.server });
  } else if (note?.event === 'tool_call_finished') {
    for (const one of [...turn.approved, ...turn.calls]) if (one.id === note.tool_call_id) Object.assign(one, { outcome: note.outcome, ms: note.duration_ms });
  }
  turn.pending = note?.requires_approval ?? turn.pending;
  turn.missing = note?.unavailable_tool_servers ?? turn.missing;
  const [choice] = event.choices ?? [];
  if (!choice) return;
  turn.finish = choice.finish_reason ?? turn.finish;
  const delta = choice.delta ?? {};
  turn.text += delta.content ?? '';
  turn.reasoning += delta.reasoning_content ?? '';
  turn.refusal += delta.refusal ?? '';
  for (const piece of delta.tool_calls ?? []) {
    const last = turn.calls.at(-1);
    if (piece.id && !known(piece.id)) turn.calls.push({ id: piece.id, name: piece.function.name, arguments: piece.function.arguments });
    else if (!piece.id && last) last.arguments += piece.function.arguments;
  }
}

/** Runs a turn; `changed` is called for each event. Failures are its `error`. @param {Turn} turn @param {() => void} changed @param {AbortSignal} signal */
export async function run(turn, changed, signal) {
  try {
    turn.prompt = await preview(turn.body, signal).catch(() => null);
    const start = performance.now();
    const response = await send('POST', '/v1/chat/completions', { body: turn.body, signal });
    /** @type {Act} */ const header = (name) => response.headers.get(name) ?? '';
    Object.assign(turn, {
      session: header('X-Session-ID'), revision: header('X-Agent-Revision'), expires: header('X-Session-Expires'), provider: header('X-Parley-Provider'),
    });
    for await (const event of events(response)) {
      take(turn, event);
      if (turn.first === null && (turn.text || turn.reasoning || turn.calls.length)) turn.first = performance.now() - start;
      changed();
    }
    turn.total = performance.now() - start;
  } catch (error) {
    turn.error = signal.aborted ? { message: 'Stopped. Nothing of this turn was stored.' } : error;
  }
  turn.busy = false;
  changed();
}
