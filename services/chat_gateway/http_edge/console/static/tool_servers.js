/** Tool servers of the project, and tests of their connections. */
import { all, call, get } from './api.js';
import { AgentTabs } from './agents.js';
import { useDraft, Yaml } from './draft.js';
import { html, kindOf, link, short, useLoad, useState } from './lib.js';
import { Badge, Confirm, Empty, Pre, Problem, Table, Time } from './ui.js';

const TOOLS = '~tools';

/** @param {ToolServersProps} p */
export function ToolServers({ may }) {
  const { data, error } = useLoad((signal) => all('/v1/tool_servers', { page_size: 200 }, signal), []);
  const action = may('tools:write') && html`<a class="button primary" href=${link('agents', TOOLS, '~new')}>New tool server</a>`;
  return html`<div class="head"><h1>Tool servers</h1>${data?.length ? action : ''}</div><${AgentTabs} current="Tool servers" /><${Problem} error=${error} />
    ${data && (data.length ? html`<div class="card"><${Table} label="Tool servers" head=${['Tool server', 'Kind', 'Address', 'Revision', 'Changed']} rows=${data.map((one) => html`<tr key=${one.id}>
      <td><a href=${link('agents', TOOLS, one.id)}>${one.id}</a><div class="dim"><bdi dir="auto">${short(one.name, 80)}</bdi></div></td><td>${kindOf(one).toUpperCase()}</td>
      <td><code>${short(one.http?.base_url ?? one[kindOf(one)]?.url, 120)}</code></td><td class="number">${one.revision}</td><td><${Time} value=${one.update_time} /></td></tr>`)} /></div>`
    : html`<${Empty} title="No tool servers yet" action=${action}>A tool server is an MCP server, an HTTP service or an A2A agent that agents may call.<//>`)}`;
}

/** @param {TestProps} p */
function Test({ id }) {
  const [found, setFound] = useState(null);
  const [busy, setBusy] = useState(false);
  const test = async () => {
    setBusy(true);
    setFound(await call('POST', `/v1/tool_servers/${id}:test`).catch((error) => ({ ok: false, problem: error.message, tools: [] })));
    setBusy(false);
  };
  return html`<section class="card" aria-label="Test"><header><h2>Test</h2><button disabled=${busy} onClick=${test}>${busy ? 'Connecting…' : 'Test connection'}</button></header>
    <div role="status">${found && (found.ok ? html`<p class="notice good">It offers ${found.tools.length + found.left_out_count} tools.</p>` : html`<p class="notice bad">${short(found.problem, 1000)}</p>`)}</div>
    ${(found?.tools ?? []).map((/** @type {any} */ tool) => html`<details><summary><code>${short(tool.name, 80)}</code> ${tool.idempotent && html`<${Badge}>idempotent<//>`}</summary>
      <p class="dim"><bdi dir="auto">${short(tool.description, 2000)}</bdi></p><${Pre} value=${tool.parameters} /></details>`)}</section>`;
}

/** @param {ToolServersEditorProps} p */
function Editor({ server, isNew, may, onSaved }) {
  const write = may('tools:write');
  const draft = useDraft('tool_servers', server, write, onSaved);
  return html`<${Problem} error=${draft.failure} /><div class="two"><${Yaml} draft=${draft} />${isNew ? html`<p class="dim">Secrets are given by name; their values are files on the gateways. The operator decides which addresses are allowed.</p>` : write && html`<${Test} id=${server.id} />`}</div>
    ${write && html`<div class="savebar card"><div><button class="primary" disabled=${!draft.ready} onClick=${() => draft.save()}>${isNew ? 'Create tool server' : 'Save'}</button></div></div>`}`;
}

/** @param {ToolServerProps} p */
export function ToolServer({ id, may }) {
  const isNew = id === '~new';
  const { data, error, reload } = useLoad((signal) => (isNew ? Promise.resolve(/** @type {any} */ ({ id: 'tools', name: '', mcp: { url: 'https://' } })) : get(`/v1/tool_servers/${encodeURIComponent(id)}`, {}, signal)), [id]);
  const all_ = link('agents', TOOLS);
  if (error) return html`<${Problem} error=${error} /><a href=${all_}>All tool servers</a>`;
  if (!data) return null;
  return html`<div class="head"><h1>${isNew ? 'New tool server' : html`<bdi dir="auto">${short(data.name || id, 80)}</bdi>`}</h1><a class="back" href=${all_}>All tool servers</a>
      ${!isNew && may('tools:write') && html`<${Confirm} label="Delete" question=${`Agents can no longer use ${id}.`} act=${async () => { await call('DELETE', `/v1/tool_servers/${id}`); location.hash = all_; }} />`}</div>
    <${Editor} key=${data.etag} server=${data} isNew=${isNew} may=${may} onSaved=${(made) => (isNew ? location.assign(link('agents', TOOLS, made.id)) : reload())} />`;
}
