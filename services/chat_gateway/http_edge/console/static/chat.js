/** One conversation of Try, with its requests for approvals and results of tools. */
import { Code } from './code.js';
import { bodyOf, newTurn, run } from './conversation.js';
import { html, prettyJson, short, useEffect, useLayoutEffect, useRef, useState } from './lib.js';
import { Content, Facts, Spoken } from './turn.js';
import { Empty, Pre, Problem, Text } from './ui.js';

/** @param {ApprovalsProps} p */
function Approvals({ turn, onAnswer }) {
  const [note, setNote] = useState('');
  /** @type {Act} */ const answer = (approve) => onAnswer(turn.pending.map((one) => ({
    tool_call_id: one.tool_call_id, approve, ...(approve || !note ? {} : { note }) })));
  return html`<div class="ask"><h2>Waiting for your approval</h2>
    ${turn.pending.map((one) => html`<div><code>${short(one.name, 80)}</code><${Pre} value=${prettyJson(one.arguments)} /></div>`)}
    <div class="row"><button class="primary" onClick=${() => answer(true)}>Approve</button><button onClick=${() => answer(false)}>Reject</button>
      <${Text} label="Reason (optional)" value=${note} onInput=${setNote} /></div></div>`;
}

/** Tools that the caller runs: the user enters their results. @param {ResultsProps} p */
function Results({ calls, onResults }) {
  const [given, setGiven] = useState(/** @type {Record<string, string>} */ ({}));
  return html`<div class="ask"><h2>Enter the results of your tools</h2>
    ${calls.map((one) => html`<${Text} label=${one.name} lines="2" value=${given[one.id] ?? ''} onInput=${(value) => setGiven({ ...given, [one.id]: value })} />`)}
    <div><button class="primary" onClick=${() => onResults(calls.map((one) => ({ role: 'tool', tool_call_id: one.id, content: given[one.id] ?? '' })))}>Send results</button></div></div>`;
}

/** @param {TurnProps} p */
function Turn({ turn, last, onAnswer, onResults }) {
  const [code, setCode] = useState(false);
  const open = turn.calls.filter((one) => !one.outcome);
  const waits = last && !turn.busy && !turn.error;
  return html`<article class="turn">
    ${turn.asked.map((one) => html`<div class=${`said-by ${one.role}`}><${Content} content=${one.content} /></div>`)}
    <${Spoken} ...${turn} open=${turn.busy && !turn.text} />
    ${turn.missing.map((one) => html`<p class="notice">Without ${short(one.tool_server)}: ${short(one.reason)}</p>`)}
    <${Problem} error=${turn.error} />
    ${waits && turn.pending.length > 0 && html`<${Approvals} turn=${turn} onAnswer=${onAnswer} />`}
    ${waits && !turn.pending.length && turn.finish === 'tool_calls' && open.length > 0 && html`<${Results} calls=${open} onResults=${onResults} />`}
    ${!turn.busy && html`<${Facts} turn=${turn} onCode=${() => setCode(true)} />`}
    ${code && html`<${Code} body=${turn.body} onClose=${() => setCode(false)} />`}</article>`;
}

const atEnd = () => innerHeight + scrollY > document.body.scrollHeight - 80;

/** @param {ColumnProps} p */
export function Column({ target, handle, onSession, onBusy }) {
  const [turns, setTurns] = useState([]);
  const aborter = useRef(/** @type {AbortController | null} */ (null));
  const frame = useRef(0);
  const latest = useRef(target);
  latest.current = target;
  const near = useRef(false);
  useEffect(() => () => aborter.current?.abort(), []);
  // Scrolls only if the end was visible before the page grew.
  const follows = near.current || (turns.length > 0 && atEnd());
  useLayoutEffect(() => { if (follows) scrollTo(0, document.body.scrollHeight); near.current = false; });

  /** @param {any} what */
  const start = async (what) => {
    const mine = new AbortController();
    aborter.current = mine;
    const turn = newTurn(what.messages ?? [], bodyOf(latest.current, what));
    if (what.approvals) { // their calls are shown where they were asked for
      const { calls, pending } = turns.at(-1);
      calls.push(...turn.approved = pending.map((/** @type {any} */ one) => ({ ...one, id: one.tool_call_id })));
    }
    near.current = true;
    setTurns((old) => [...old, turn]);
    onBusy(true);
    // At most one rendering a frame.
    const changed = () => { frame.current ||= requestAnimationFrame(() => { frame.current = 0; setTurns((old) => [...old]); }); };
    await run(turn, changed, mine.signal);
    onBusy(false);
    if (turn.session && aborter.current === mine) onSession(turn.session);
  };
  handle({
    say: (content) => start({ messages: [{ role: 'user', content }] }),
    stop: () => aborter.current?.abort(),
    clear: () => { aborter.current?.abort(); aborter.current = null; setTurns([]); },
  });
  if (!turns.length) return html`<${Empty} title=${target.agent ? `Talk to ${short(target.agent, 60)}` : 'Choose an agent'}>See the answer with its reasoning, tool calls, exact prompt, tokens and times.<//>`;
  return html`<div class="turns" aria-live="polite" aria-busy=${turns.at(-1).busy}>${turns.map((turn, i) => html`<${Turn} key=${i} turn=${turn} last=${i === turns.length - 1}
    onAnswer=${(approvals) => start({ approvals })} onResults=${(messages) => start({ messages })} />`)}</div>`;
}
