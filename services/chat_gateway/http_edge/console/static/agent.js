/** One agent: form and YAML side by side, and its revisions. */
import { all, call, send } from './api.js';
import { useDraft, Yaml } from './draft.js';
import { clean, html, kindOf, link, short, useLoad, useState } from './lib.js';
import { Revisions } from './revisions.js';
import { SchemaForm } from './schema_form.js';
import { Badge, Confirm, Empty, Problem, Select, Tabs, Text } from './ui.js';

const NUMBERS = [
  ['model.temperature', 'Temperature', 'any'], ['model.max_output_tokens', 'Max. output tokens', 1], ['model.top_p', 'Top p', 'any'],
  ['memory.max_messages', 'Messages of history', 1], ['limits.max_concurrent_turns', 'Max. turns at once', 1], ['limits.requests_per_minute', 'Max. turns a minute', 1],
];
const TIMES = [['session.idle_ttl', 'Session ends when idle for'], ['session.max_lifetime', 'Session ends after'], ['limits.turn_timeout', 'Turn times out after']];

/** @param {any} value @param {string} path */
const at = (value, path) => path.split('.').reduce((one, name) => one?.[name], value);

/** What an agent may refer to. @param {AbortSignal} signal */
const choices = async (signal) => {
  const [templates, providers, servers, agents] = await Promise.all(['templates', 'providers', 'tool_servers', 'agents'].map((one) => all(`/v1/${one}`, { page_size: 200 }, signal)));
  return { templates, providers, servers, agents };
};

/** @param {ToolsProps} p */
function Tools({ draft, known, id }) {
  const tools = draft.value.tools ?? [];
  /** @type {Act} */ const add = (choice) => {
    const [kind, name] = choice.split(' ');
    if (name) draft.set('tools', [...tools, { [kind]: kind === 'agent' ? { agent_id: name } : name }]);
  };
  /** @type {Act} */ const label = (tool) => Object.entries(tool).map(([kind, one]) => `${kind}: ${typeof one === 'string' ? one : one?.tool_server ?? one?.operator_tool_server ?? one?.agent_id ?? one?.name ?? ''}`).join();
  return html`<div class="field wide"><strong class="label">Tools</strong>${tools.map((tool, i) => html`<div class="row"><${Badge}>${short(label(tool), 80)}<//>
      <button type="button" class="quiet" aria-label=${`Remove ${label(tool)}`} onClick=${() => draft.set('tools', tools.length > 1 ? tools.filter((_, n) => n !== i) : undefined)}>✕</button>
      <span class="wrong">${draft.wrong(`tools[${i}]`) ?? ''}</span></div>`)}
    <${Select} label="Add a tool server or an agent" value="" onInput=${add} options=${[['', 'Choose…'], ...known.servers.map((one) => [`${kindOf(one)} ${one.id}`, `Tool server ${one.id}`]),
      ...known.agents.filter((one) => one.id !== id).map((one) => [`agent ${one.id}`, `Agent ${one.id}`])]} /></div>`;
}

/** @param {FormProps} p */
function Form({ draft, known, isNew }) {
  const { value, set, wrong } = draft;
  /** @type {Act} */ const text = (path, label, more = {}) => html`<${Text} label=${label} value=${at(value, path)} error=${wrong(path)} onInput=${(to) => set(path, to)} ...${more} />`;
  const provider = known.providers.find((one) => one.name === value.model?.provider);
  const template = known.templates.find((one) => one.id === (value.template_id || 'assistant'));
  return html`<section class="card" aria-label="Form"><header><h2>Form</h2></header><div class="fields">
    ${isNew && text('id', 'Id', { hint: 'Lower case letters, digits and dashes. Applications name it.' })}${text('name', 'Name')}
    <${Select} label="Template" value=${value.template_id ?? ''} error=${wrong('template_id')} options=${['', ...new Set(known.templates.map((one) => one.id))]} onInput=${(to) => set('template_id', to)} />
    ${text('instructions', 'Instructions', { lines: 6, wide: true })}
    <${Select} label="Provider" value=${value.model?.provider ?? ''} error=${wrong('model.provider') ?? wrong('model')} options=${['', ...known.providers.map((one) => one.name)]} onInput=${(to) => set('model.provider', to)} />
    ${provider?.models.length ? html`<${Select} label="Model" value=${value.model?.name ?? ''} error=${wrong('model.name')} options=${['', ...provider.models]} onInput=${(to) => set('model.name', to)} />` : text('model.name', 'Model')}
    ${NUMBERS.map(([path, label, step]) => html`<${Text} key=${path} label=${label} type="number" step=${step} value=${at(value, String(path))} error=${wrong(String(path))} onInput=${(to) => set(String(path), to === '' ? undefined : Number(to))} />`)}
    ${TIMES.map(([path, label]) => text(path, label, { placeholder: '1800s' }))}
    <${Tools} draft=${draft} known=${known} id=${value.id ?? ''} /></div>
    ${template && html`<h3>Parameters of ${template.id}</h3><p class="hint">${clean(template.description)}</p><div class="fields"><${SchemaForm} schema=${template.parameters_schema} value=${value.parameters} path="parameters" wrong=${wrong} set=${set} /></div>`}</section>`;
}

/** @param {EditorProps} p */
function Editor({ agent, isNew = false, onSaved, readOnly = false }) {
  const { data: known, error } = useLoad(choices, []);
  const [comment, setComment] = useState('');
  const draft = useDraft('agents', agent, !readOnly, onSaved);
  if (error) return html`<${Problem} error=${error} />`;
  if (!known) return null;
  return html`<${Problem} error=${draft.failure} /><div class="two"><fieldset disabled=${readOnly}><${Form} draft=${draft} known=${known} isNew=${isNew} /></fieldset><${Yaml} draft=${draft} /></div>
    ${!readOnly && html`<div class="savebar card"><div class="row"><${Text} label="Comment (optional)" value=${comment} onInput=${setComment} placeholder="What changes, and why" />
      <button class="primary" disabled=${!draft.ready} onClick=${() => draft.save({ comment })}>${isNew ? 'Create agent' : 'Save as new revision'}</button></div></div>`}`;
}

export function NewAgent() {
  const first = { id: '', name: '', template_id: 'assistant', instructions: 'You are a friendly assistant.', model: { provider: '', name: '' } };
  const { data: providers } = useLoad((signal) => all('/v1/providers', {}, signal), []);
  if (!providers) return null;
  const [one] = providers;
  const model = one ? { provider: one.name, name: one.models[0] ?? '' } : first.model;
  return html`<div class="head"><h1>New agent</h1><a class="back" href="#/agents">All agents</a></div>
    <${Editor} isNew agent=${{ ...first, model }} onSaved=${(made) => { location.hash = link('agents', made.id); }} />`;
}

/** What is not available yet, and what to use instead. @param {LaterProps} p */
const Later = ({ agent }) => html`<${Empty} title="Releases, budgets and usage">Not available yet. Applications can name a revision as <code>${agent.id}@${agent.revision}</code>.
  <a href=${link('agents', agent.id)}>Configuration</a> sets limits, and <a href=${`#/sessions?agent=${agent.id}`}>sessions</a> show their tokens.<//>`;

/** @param {AgentProps} p */
export function Agent({ id, tab, may }) {
  const { data: agent, error, reload } = useLoad(async (signal) => (await send('GET', `/v1/agents/${encodeURIComponent(id)}`, { signal })).json(), [id]);
  const [saved, setSaved] = useState('');
  /** @type {Act} */ const done = (made) => { setSaved(`Revision ${made.revision} is now in use.`); reload(); };
  const remove = async () => {
    await call('DELETE', `/v1/agents/${id}`);
    location.hash = '#/agents';
  };
  if (error) return html`<${Problem} error=${error} /><a href="#/agents">All agents</a>`;
  if (!agent) return null;
  const tabs = [['Configuration', ''], ['Revisions', 'revisions'], ['Releases and usage', 'later']];
  return html`<div class="head"><h1><bdi dir="auto">${clean(agent.name || agent.id)}</bdi></h1><${Badge}>${agent.id}<//><${Badge} kind="accent">revision ${agent.revision}<//>
      ${may('chat') && html`<a class="button" href=${link('try', id)}>Try</a>`}${may('sessions:read') && html`<a class="button" href=${`#/sessions?agent=${id}`}>Sessions</a>`}
      ${may('agents:write') && html`<${Confirm} label="Delete" question=${`${id} stops answering, and its sessions are removed. It can be undeleted for a while; its sessions can’t.`} act=${remove} />`}</div>
    <${Tabs} label="Agent" current=${(tabs.find(([, path]) => path === tab) ?? tabs[0])[0]} tabs=${tabs.map(([name, path]) => [name, link('agents', id, ...path ? [path] : [])])} />
    <div role="status">${saved && html`<p class="notice good">${saved}</p>`}</div>
    ${tab === 'revisions' ? html`<${Revisions} agent=${agent} may=${may} onChange=${done} />` : tab === 'later' ? html`<${Later} agent=${agent} />` : html`<${Editor} key=${agent.etag} agent=${agent} onSaved=${done} readOnly=${!may('agents:write')} />`}`;
}
