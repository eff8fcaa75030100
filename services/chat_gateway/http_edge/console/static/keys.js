/** API keys with their scopes and limits, and projects. */
import { all, call } from './api.js';
import { clean, html, instead, short, useLoad, useState } from './lib.js';
import { Badge, Check, Confirm, Copy, Dialog, Empty, Pre, Problem, Table, Text, Time } from './ui.js';

/** @param {NewKeyProps} p */
function NewKey({ caller, onClose, onMade }) {
  const [key, setKey] = useState({ display_name: '', scopes: ['chat'], user_id: '', requests_per_minute: '', concurrent_turns: '' });
  const [made, setMade] = useState(null);
  const [error, setError] = useState(null);
  /** @type {(name: string) => Act} */
  const set = (name) => (value) => setKey({ ...key, [name]: value });
  const make = async () => {
    const limits = { requests_per_minute: Number(key.requests_per_minute), concurrent_turns: Number(key.concurrent_turns) };
    const body = { display_name: key.display_name, scopes: key.scopes, limits, user_id: key.user_id || undefined };
    await call('POST', '/v1/api_keys', { body }).then((one) => { setMade(one); onMade(); }, setError);
  };
  /** @type {Act} */ const wrong = (field) => /** @type {Failure} */ (error)?.violations?.find((one) => one.field === field)?.description;
  if (made) return html`<${Dialog} title="New API key" onClose=${onClose}><p class="notice">It is not shown again.</p><${Pre} value=${made.key} /><footer><${Copy} text=${made.key} /></footer><//>`;
  return html`<${Dialog} title="New API key" onClose=${onClose}><${Problem} error=${error} /><div class="fields"><${Text} label="Name" value=${key.display_name} error=${wrong('display_name')} onInput=${set('display_name')} />
    <${Text} label="Only for this user" value=${key.user_id} error=${wrong('user_id')} onInput=${set('user_id')} placeholder="any" />
    <${Text} label="Turns a minute" type="number" min="0" value=${key.requests_per_minute} onInput=${set('requests_per_minute')} placeholder="no limit" /><${Text} label="Turns at once" type="number" min="0" value=${key.concurrent_turns} onInput=${set('concurrent_turns')} placeholder="no limit" /></div>
    <fieldset><legend class="label">Scopes</legend><div class="fields">${caller.scopes.filter((one) => one !== 'operator').map((one) => html`<${Check} label=${one} value=${key.scopes.includes(one)} onInput=${(on) => set('scopes')(on ? [...key.scopes, one] : key.scopes.filter((/** @type {string} */ other) => other !== one))} />`)}</div></fieldset>
    <footer><button class="primary" disabled=${!key.scopes.length} onClick=${make}>Create key</button></footer><//>`;
}

/** @param {KeysProps} p */
export function Keys({ caller }) {
  const { data, error, reload } = useLoad((signal) => all('/v1/api_keys', { page_size: 200 }, signal), []);
  const [open, setOpen] = useState(false);
  /** @type {Act} */ const limit = (n, word) => (n ? `${n} ${word} ` : '');
  /** @param {Key} one */
  const row = (one) => html`<tr key=${one.id}><td><bdi dir="auto">${short(one.display_name || one.id, 80)}</bdi><div class="dim">${one.id}</div></td><td>${one.scopes.map((scope) => html`<${Badge}>${scope}<//> `)}</td><td><bdi>${short(one.user_id ?? 'any', 60)}</bdi></td>
    <td>${limit(one.limits.requests_per_minute, 'a minute') + limit(one.limits.concurrent_turns, 'at once') || '–'}</td><td>${one.last_used_time ? html`<${Time} value=${one.last_used_time} />` : 'never'}</td>
    <td>${one.revoke_time ? html`<${Badge} kind="bad">revoked<//>` : html`${one.expire_time && html`expires <${Time} value=${one.expire_time} />`}<${Confirm} label="Revoke" question="The key stops working within a second." act=${() => call('DELETE', `/v1/api_keys/${one.id}`).then(reload)} />`}</td></tr>`;
  return html`<div><button class="primary" onClick=${() => setOpen(true)}>New API key</button></div><${Problem} error=${error} />
    ${data && (data.length ? html`<div class="card"><${Table} label="API keys" head=${['Key', 'Scopes', 'User', 'Limits', 'Last used', '']} rows=${data.map(row)} /></div>` : html`<${Empty} title="No API keys yet">A key allows an application or a person what its scopes say.<//>`)}
    ${open && html`<${NewKey} caller=${caller} onClose=${() => setOpen(false)} onMade=${reload} />`}`;
}

export function Projects() {
  const { data, error, reload } = useLoad((signal) => all('/v1/projects', { page_size: 200 }, signal), []);
  const [id, setId] = useState('');
  const [problem, setProblem] = useState(null);
  const make = () => {
    call('POST', '/v1/projects', { body: { id } }).then(() => { setId(''); setProblem(null); reload(); }, setProblem);
  };
  return html`<${Problem} error=${error ?? problem} /><form class="row" onSubmit=${instead(make)}><${Text} label="New project" value=${id} onInput=${setId} placeholder="id" /><button disabled=${!id}>Create</button></form>
    <div class="card"><${Table} label="Projects" head=${['Project', 'Created', '']} rows=${(data ?? []).map((one) => html`<tr key=${one.id}><td>${one.id} <span class="dim"><bdi dir="auto">${short(one.display_name, 80)}</bdi></span></td><td><${Time} value=${one.create_time} /></td>
      <td>${one.id !== 'default' && html`<${Confirm} label="Delete" question=${`Everything in ${clean(one.id)} is deleted: agents, sessions, keys. Its audit log stays.`} act=${() => call('DELETE', `/v1/projects/${one.id}`).then(reload)} />`}</td></tr>`)} /></div>`;
}
