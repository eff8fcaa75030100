/** Revisions of an agent: differences and rollback. */
import { all, call, get } from './api.js';
import { clean, html, link, short, useLoad, useState } from './lib.js';
import { Badge, Confirm, Pre, Problem, Select, Table, Time } from './ui.js';

/** @param {any} value */
const shown = (value) => (value === undefined ? html`<span class="dim">not set</span>` : html`<${Pre} value=${value} />`);

/** @param {DifferenceProps} p */
function Difference({ id, from, to }) {
  const { data, error } = useLoad((signal) => get(`/v1/agents/${id}/compare`, { from_revision: from, to_revision: to }, signal), [id, from, to]);
  if (error) return html`<${Problem} error=${error} />`;
  if (!data) return null;
  if (!data.differences.length) return html`<p class="dim">No differences.</p>`;
  return html`<${Table} label=${`Revision ${from} and ${to}`} head=${['Field', `Revision ${from}`, `Revision ${to}`]} rows=${data.differences.map((one) => html`<tr><td><code>${clean(one.path)}</code></td><td>${shown(one.from)}</td><td>${shown(one.to)}</td></tr>`)} />`;
}

/** @param {RevisionsProps} p */
export function Revisions({ agent, may, onChange }) {
  const { data, error } = useLoad((signal) => all(`/v1/agents/${agent.id}/revisions`, { page_size: 100 }, signal, 500), [agent.revision]);
  const [pair, setPair] = useState([Math.max(agent.revision - 1, 1), agent.revision]);
  if (error) return html`<${Problem} error=${error} />`;
  if (!data) return null;
  const numbers = data.map((one) => String(one.revision));
  /** @type {Act} */ const rollback = (revision) => call('POST', `/v1/agents/${agent.id}:rollback`, { body: { revision, etag: agent.etag, comment: `Back to revision ${revision}` } }).then(onChange);
  return html`<div class="card"><header><h2>Differences</h2></header><div class="row">
      <${Select} label="From" value=${String(pair[0])} options=${numbers} onInput=${(n) => setPair([Number(n), pair[1]])} />
      <${Select} label="To" value=${String(pair[1])} options=${numbers} onInput=${(n) => setPair([pair[0], Number(n)])} /></div>
      <${Difference} id=${agent.id} from=${pair[0]} to=${pair[1]} /></div>
    <div class="card"><${Table} label="Revisions" head=${['Revision', 'Created', 'By', 'Changed', 'Comment', '']} rows=${data.map((one) => html`<tr key=${one.revision}>
      <td>${one.revision} ${one.revision === agent.revision && html`<${Badge} kind="accent">current<//>`}</td><td><${Time} value=${one.create_time} /></td><td><bdi>${short(one.author || '–', 60)}</bdi></td>
      <td>${one.changed_fields.map((/** @type {string} */ field) => html`<code>${clean(field)}</code> `)}</td><td><bdi dir="auto">${short(one.comment)}</bdi></td>
      <td><span class="row">${may('chat') && html`<a class="button" href=${`${link('try', agent.id)}?revision=${one.revision}`} aria-label=${`Try revision ${one.revision}`}>Try</a>`}
        <button aria-label=${`Diff of revision ${one.revision}`} onClick=${() => setPair([Math.max(one.revision - 1, 1), one.revision])}>Diff</button>
        ${may('agents:write') && one.revision !== agent.revision && html`<${Confirm} label="Roll back" kind="" question=${`A new revision is made with the content of revision ${one.revision}.`} act=${() => rollback(one.revision)} />`}</span></td></tr>`)} /></div>`;
}
