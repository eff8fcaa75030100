/** One session: its turns, and the running one live. */
import { all, call, events, get, send } from './api.js';
import { newTurn, take } from './conversation.js';
import { download, html, link, pretty, short, useEffect, useEvery, useLoad, useState } from './lib.js';
import { Content, Spoken, tokens } from './turn.js';
import { Badge, Confirm, Pre, Problem, Time } from './ui.js';

const LOOK_MS = 2000;

/** Messages of a page as turns. @param {any[]} messages */
function turnsOf(messages) {
  /** @type {Map<number, any[]>} */
  const turns = new Map();
  for (const one of messages) turns.set(one.turn_number, [...(turns.get(one.turn_number) ?? []), one]);
  return [...turns.values()];
}

/** What the caller gave before the agent went on: results of the turn before. @param {any[]} turn */
const given = (turn) => turn.slice(0, turn.findIndex((one) => one.role === 'assistant'));

/** @param {SessionTurnProps} p */
function Turn({ before, messages, after, session, may }) {
  const last = messages[messages.length - 1];
  const results = new Map([...given(after), ...messages].filter((one) => one.role === 'tool').map((one) => [one.tool_call_id, one.content]));
  const called = new Set([...before, ...messages].flatMap((one) => one.tool_calls ?? []).map((made) => made.id));
  const fork = async () => {
    const made = await call('POST', `/v1/sessions/${encodeURIComponent(session.id)}:fork`, { body: { up_to_turn: last.turn_number } });
    location.hash = link('sessions', made.id);
  };
  return html`<article class="turn" aria-label=${`Turn ${last.turn_number}`}><header class="row"><h2>Turn ${last.turn_number}</h2><${Time} value=${last.create_time} /><${Badge}>revision ${last.agent_revision}<//>
      ${last.model && html`<${Badge}><bdi>${short(last.model, 60)}</bdi><//>`}<span class="dim">${last.usage ? `${tokens(last.usage)} tokens` : ''}</span>${last.finish_reason && last.finish_reason !== 'stop' && html`<${Badge} kind="warn">${last.finish_reason}<//>`}
      ${may('sessions:admin') && html`<span class="right"><${Confirm} label="Fork here" question=${`The new session starts with turns 1 to ${last.turn_number}.`} act=${fork} /></span>`}</header>
    ${messages.map((one) => (one.role === 'assistant' ? html`<${Spoken} results=${results} reasoning=${one.reasoning_content} refusal=${one.refusal} calls=${(one.tool_calls ?? []).map((made) => ({ id: made.id, ...made.function }))}
        text=${typeof one.content === 'string' || !one.content ? one.content : pretty(one.content)} />`
    : one.role === 'tool' && called.has(one.tool_call_id) ? null
      : html`<div class=${`said-by ${one.role}`}><${Content} content=${one.content} /></div>`))}</article>`;
}

/** The running turn, from its journal. @param {LiveProps} p */
function Live({ session, onEnd }) {
  const [turn, setTurn] = useState(() => newTurn([], null));
  useEffect(() => {
    const aborter = new AbortController();
    const headers = { 'X-Session-ID': session.id, ...(session.user_id ? { 'X-User-ID': session.user_id } : {}) };
    const follow = async () => {
      const response = await send('GET', `/v1/chat/completions/${encodeURIComponent(session.running_completion_id)}/events`, { headers, signal: aborter.signal });
      for await (const event of events(response)) {
        take(turn, event);
        setTurn({ ...turn });
      }
      onEnd();
    };
    // A turn without tool calls that is not resumable has no journal: it is shown once stored.
    follow().catch(() => {});
    return () => aborter.abort();
  }, []);
  return html`<article class="turn" aria-label="Running turn" aria-live="polite"><header class="row"><h2>Now</h2><${Badge} kind="good">running<//></header>
    <${Spoken} ...${turn} open busy /></article>`;
}

/** @param {SessionProps} p */
export function Session({ id, may }) {
  const path = `/v1/sessions/${encodeURIComponent(id)}`;
  const { data: session, error, reload } = useLoad((signal) => get(path, {}, signal), [id]);
  const stored = `${session?.turn_count} ${session?.message_count}`;
  const messages = useLoad((signal) => (session ? all(`${path}/messages`, { page_size: 100 }, signal, 2000) : Promise.resolve([])), [id, stored]);
  useEvery(reload, LOOK_MS);
  if (error) return html`<${Problem} error=${error} /><a href="#/sessions">All sessions</a>`;
  if (!session) return null;
  const facts = [['Agent', html`<a href=${link('agents', session.agent_id)}>${session.agent_id}</a>`], ['User', html`<bdi>${short(session.user_id || '–', 80)}</bdi>`], ['Turns', session.turn_count], ['Tokens', tokens(session.usage)],
    ['Revision', session.pinned_revision ? `pinned to ${session.pinned_revision}` : session.agent_revision || '–'], ['Created', html`<${Time} value=${session.create_time} />`],
    ['Active', html`<${Time} value=${session.last_activity_time} />`], ['Expires', html`<${Time} value=${session.expire_time} />`]];
  const go = `${link('try', session.agent_id)}?${new URLSearchParams({ session: id, user: session.user_id })}`;
  const remove = async () => { await call('DELETE', path); location.hash = '#/sessions'; };
  return html`<div class="head"><h1><bdi>${short(id, 80)}</bdi></h1><a class="back" href="#/sessions">All sessions</a>${may('chat') && html`<a class="button" href=${go}>Continue in Try</a>`}
      <button onClick=${() => download(`session-${id}.json`, pretty({ session, messages: messages.data }))}>Export</button>
      ${may('sessions:admin') && html`<${Confirm} label="Delete" question="The session and its history are removed." act=${remove} />`}</div>
    <div class="card"><dl class="facts">${facts.map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
      ${Object.keys(session.metadata).length > 0 && html`<details><summary>Metadata</summary><${Pre} value=${session.metadata} /></details>`}</div>
    <${Problem} error=${messages.error} />
    <div class="turns">${turnsOf(messages.data ?? []).map((one, i, turns) => html`<${Turn} key=${one[0].turn_number} before=${turns[i - 1] ?? []} messages=${one} after=${turns[i + 1] ?? []} ...${{ session, may }} />`)}
      ${session.running_completion_id && html`<${Live} key=${session.running_completion_id} session=${session} onEnd=${reload} />`}</div>`;
}
