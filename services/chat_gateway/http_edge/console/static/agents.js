/** Agents: the list, and its pages. */
import { all, call } from './api.js';
import { html, link, short, useLoad, useState } from './lib.js';
import { Agent, NewAgent } from './agent.js';
import { ToolServer, ToolServers } from './tool_servers.js';
import { Badge, Check, Confirm, Empty, Problem, Table, Tabs, Text, Time } from './ui.js';

export const TOOLS = '~tools';
const EXPRESSION = /[=<>:"]/;

/** @param {any} agent @param {string} words */
function matches(agent, words) {
  const text = [agent.id, agent.name, agent.template_id, agent.model?.provider, agent.model?.name, ...Object.entries(agent.labels ?? {}).flat()].join(' ').toLowerCase();
  return words.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

/** @param {RowProps} p */
function Row({ agent, may, onChange }) {
  const gone = Boolean(agent.delete_time);
  const undelete = () => call('POST', `/v1/agents/${agent.id}:undelete`, { body: { uid: agent.uid } }).then(onChange);
  return html`<tr><td>${gone ? html`<bdi>${short(agent.id)}</bdi>` : html`<a href=${link('agents', agent.id)}><bdi>${short(agent.id)}</bdi></a>`}
      <div class="dim"><bdi dir="auto">${short(agent.name, 80)}</bdi></div></td>
    <td><bdi>${short(agent.model?.name || '–', 60)}</bdi><div class="dim">${short(agent.model?.provider ?? '', 40)}</div></td>
    <td>${short(agent.template_id)}</td><td>${Object.entries(agent.labels ?? {}).slice(0, 4).map(([k, v]) => html`<${Badge}><bdi>${short(`${k}=${v}`, 40)}</bdi><//> `)}</td>
    <td class="number">${agent.revision}</td><td><${Time} value=${agent.update_time} /></td>
    <td>${gone ? html`<${Badge} kind="warn">deleted<//> ${may('agents:write') && html`<${Confirm} label="Undelete" kind="" question=${`${agent.id} is restored without its sessions.`} act=${undelete} />`}`
    : may('chat') && html`<a class="button" href=${link('try', agent.id)} aria-label=${`Try ${agent.id}`}>Try</a>`}</td></tr>`;
}

/** @param {ListProps} p */
function List({ may }) {
  const [words, setWords] = useState('');
  const [deleted, setDeleted] = useState(false);
  const filter = EXPRESSION.test(words) ? words : '';
  const { data, error, reload } = useLoad((signal) => all('/v1/agents', { page_size: 200, show_deleted: deleted, filter }, signal), [filter, deleted]);
  const shown = data?.filter((one) => filter || matches(one, words));
  return html`<div class="head"><h1>Agents</h1>${may('agents:write') && html`<a class="button primary" href=${link('agents', '~new')}>New agent</a>`}</div>
    <${AgentTabs} current="Agents" />
    <div class="row"><${Text} label="Filter" value=${words} onInput=${setWords} placeholder="words, or labels.team = &quot;help&quot;" type="search" />
      <${Check} label="Show deleted" value=${deleted} onInput=${setDeleted} /></div>
    <${Problem} error=${error} />
    ${shown && (shown.length ? html`<div class="card"><${Table} label="Agents" head=${['Agent', 'Model', 'Template', 'Labels', 'Revision', 'Changed', '']}
      rows=${shown.map((one) => html`<${Row} key=${one.uid} agent=${one} may=${may} onChange=${reload} />`)} /></div>`
    : words ? html`<${Empty} title="No matches">No agent matches the filter.<//>`
      : html`<${Empty} title="No agents yet" action=${may('agents:write') && html`<a class="button primary" href=${link('agents', '~new')}>Create an agent</a>`}>An agent is a model with instructions. Applications use its id as the model.<//>`)}`;
}

/** @param {AgentTabsProps} p */
export const AgentTabs = ({ current }) => html`<${Tabs} label="Agents" current=${current} tabs=${[['Agents', '#/agents'], ['Tool servers', link('agents', TOOLS)]]} />`;

/** @param {AgentsProps} p */
export default function Agents({ where, may }) {
  const [, id, sub] = where.parts;
  if (id === TOOLS) return sub ? html`<${ToolServer} key=${sub} id=${sub} may=${may} />` : html`<${ToolServers} may=${may} />`;
  if (id === '~new') return html`<${NewAgent} />`;
  return id ? html`<${Agent} key=${id} id=${id} tab=${sub ?? ''} may=${may} />` : html`<${List} may=${may} />`;
}
