/** The audit log, filtered. */
import { get } from './api.js';
import { clean, html, short, usePages, useState } from './lib.js';
import { Empty, Pre, Problem, Table, Text, Time } from './ui.js';

export function Audit() {
  const [asked, setAsked] = useState({ actor: '', resource: '', start: '', end: '' });
  /** @type {Act} */ const time = (text) => (text && !Number.isNaN(Date.parse(text)) ? new Date(text).toISOString() : '');
  const query = { actor: asked.actor, resource: asked.resource, start_time: time(asked.start), end_time: time(asked.end), page_size: 100 };
  const { rows, error, next } = usePages((page_token, signal) => get('/v1/audit', { ...query, page_token }, signal), Object.values(query));
  /** @type {Act} */ const field = (name, label, extra) => html`<${Text} label=${label} value=${asked[name]} onInput=${(value) => setAsked({ ...asked, [name]: value })} ...${extra} />`;
  return html`<div class="row">${field('actor', 'Actor', { placeholder: 'operator' })}${field('resource', 'Resource', { placeholder: 'agent_configs/support' })}${field('start', 'From', { type: 'datetime-local' })}${field('end', 'To', { type: 'datetime-local' })}</div><${Problem} error=${error} />
    ${rows && (rows.length ? html`<div class="card"><${Table} label="Audit log" head=${['Time', 'Actor', 'Action', 'Resource', 'Change']} rows=${rows.map((one) => html`<tr key=${one.id}><td><${Time} value=${one.time} /></td><td><bdi>${short(one.actor, 60)}</bdi></td><td>${clean(one.action)}</td><td><bdi>${short(one.resource, 100)}</bdi></td>
      <td><details><summary>Before and after</summary><${Pre} value=${{ before: one.before, after: one.after, request_id: one.request_id, source: one.source }} /></details></td></tr>`)} />${next && html`<div><button onClick=${next}>Show more</button></div>`}</div>`
    : html`<${Empty} title="Nothing recorded">No write matches the filters.<//>`)}`;
}
