/** Sessions by agent and user; export and erasure of a user. */
import { call, get, send } from './api.js';
import { download, html, instead, link, pretty, short, usePages, useState } from './lib.js';
import { Session } from './session.js';
import { tokens } from './turn.js';
import { Badge, Dialog, Empty, Pre, Problem, Table, Text, Time } from './ui.js';

/** @param {UserProps} p */
function User({ caller, given, may, onClose, onErased }) {
  const [user, setUser] = useState(caller.user_id ?? given);
  const [receipt, setReceipt] = useState(null);
  const [error, setError] = useState(null);
  const [sure, setSure] = useState(false);
  const body = { user_id: user };
  const save = async () => download(`user-${user}.jsonl`, await (await send('POST', '/v1/users:export', { body })).text(), 'application/x-ndjson');
  const erase = async () => {
    setReceipt(await call('POST', '/v1/users:erase', { body }));
    onErased();
  };
  /** @type {Act} */ const run = (act) => act().then(() => setError(null), setError);
  return html`<${Dialog} title="A user’s data" onClose=${onClose}><${Problem} error=${error} />
    ${receipt ? html`<div class="notice good" role="status"><strong>Erased. This is the receipt:</strong><${Pre} value=${receipt} /></div>
      <footer><button onClick=${() => download(`erasure-${user}.json`, pretty(receipt))}>Download receipt</button></footer>`
    : html`<p class="dim">All sessions of one user, with every message.</p>
      <${Text} label="User id" value=${user} disabled=${Boolean(caller.user_id)} onInput=${(value) => { setUser(value); setSure(false); }} />
      ${sure && html`<p class="notice">This removes all sessions of <bdi>${short(user)}</bdi>, revokes their API keys, and replaces their name in the audit log by a pseudonym. It can’t be undone.</p>`}
      <footer><button disabled=${!user} onClick=${() => run(save)}>Export</button>
        ${may('sessions:admin') && html`<button class="danger" disabled=${!user} onClick=${() => (sure ? run(erase) : setSure(true))}>${sure ? 'Erase permanently' : 'Erase…'}</button>`}</footer>`}<//>`;
}

/** @param {SessionsListProps} p */
function List({ where, caller, may }) {
  const [agent, setAgent] = useState(where.query.get('agent') ?? '');
  const [user, setUser] = useState(where.query.get('user') ?? '');
  const [id, setId] = useState('');
  const [dialog, setDialog] = useState(false);
  const query = { agent_id: agent, user_id: user, page_size: 50 };
  const { rows, error, reload, next } = usePages((page_token, signal) => get('/v1/sessions', { ...query, page_token }, signal), [agent, user]);
  return html`<div class="head"><h1>Sessions</h1><button onClick=${() => setDialog(true)}>Export or erase a user</button></div>
    <form class="row" onSubmit=${instead(() => { if (id) location.hash = link('sessions', id); })}>
      <${Text} label="Agent" value=${agent} onInput=${setAgent} placeholder="any" />${!caller.user_id && html`<${Text} label="User" value=${user} onInput=${setUser} placeholder="any" />`}
      <${Text} label="Session id" value=${id} onInput=${setId} placeholder="id" /><button disabled=${!id}>Open</button><button type="button" onClick=${reload}>Refresh</button></form>
    <${Problem} error=${error} />
    ${rows && (rows.length ? html`<div class="card"><${Table} label="Sessions" head=${['Session', 'User', 'Agent', 'Turns', 'Tokens', 'Active', 'Expires']} rows=${rows.map((one) => html`<tr key=${one.id}>
      <td><a href=${link('sessions', one.id)}><bdi>${short(one.id, 60)}</bdi></a> ${one.running_completion_id && html`<${Badge} kind="good">running<//>`}</td><td><bdi>${short(one.user_id || '–', 60)}</bdi></td>
      <td>${short(one.agent_id)} <span class="dim">@${one.agent_revision}</span></td><td class="number">${one.turn_count}</td><td>${tokens(one.usage)}</td><td><${Time} value=${one.last_activity_time} /></td><td><${Time} value=${one.expire_time} /></td></tr>`)} />
      ${next && html`<div><button onClick=${next}>Show more</button></div>`}</div>`
    : html`<${Empty} title="No sessions">${agent || user ? 'No match, or all have expired.' : 'A session begins with a user’s first turn, and expires.'}<//>`)}
    ${dialog && html`<${User} ...${{ caller, may }} given=${user} onClose=${() => setDialog(false)} onErased=${reload} />`}`;
}

/** @param {SessionsProps} p */
export default function Sessions({ where, caller, may }) {
  const id = where.parts[1];
  return id ? html`<${Session} key=${id} id=${id} may=${may} />` : html`<${List} ...${{ where, caller, may }} />`;
}
