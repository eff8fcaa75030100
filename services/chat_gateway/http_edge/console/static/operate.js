/** Operate: the last hour of all gateways; keys, projects, the audit log. */
import { get } from './api.js';
import { Audit } from './audit.js';
import { Chart } from './chart.js';
import { Keys, Projects } from './keys.js';
import { ago, clean, duration, html, link, short, useEvery, useLoad } from './lib.js';
import { Badge, Problem, Table, Tabs } from './ui.js';

const REFRESH_MS = 5000;
/** @type {Record<string, string>} */
const GOOD = { closed: 'good', half_open: 'warn', open: 'bad', serving: 'good', not_serving: 'warn', unreachable: 'bad' };
/** @type {[string, string, string][]} */
const PARTS = [['Overview', '', 'operator'], ['Instances', 'instances', 'runtime:admin'], ['API keys', 'keys', 'keys:admin'], ['Projects', 'projects', 'operator'], ['Audit log', 'audit', 'audit:read']];

/** Samples of all gateways by time. @param {any[]} figures */
function merged(figures) {
  const [step] = figures.map((one) => one.interval_seconds);
  /** @type {Map<number, any[]>} */
  const slots = new Map();
  for (const sample of figures.flatMap((one) => one.samples)) {
    const at = Math.round(Date.parse(sample.time) / 1000 / step) * step;
    slots.set(at, [...(slots.get(at) ?? []), sample]);
  }
  const times = [...slots.keys()].sort((a, b) => a - b);
  /** @type {(reduce: (some: any[]) => any) => any[]} */
  const over = (reduce) => times.map((time) => reduce(slots.get(time) ?? []));
  /** @type {(name: string) => any[]} */
  const sum = (name) => over((some) => some.reduce((n, one) => n + one[name], 0));
  /** @type {Act} */ const worst = (name) => over((some) => some.reduce((n, one) => (one[name] == null ? n : Math.max(n ?? 0, one[name])), null));
  const failed = over((some) => some.flatMap((one) => Object.values(one.errors)).reduce((a, b) => a + b, 0) / step);
  return { times, step, sum, worst, failed };
}

/** @param {ChartsProps} p */
function Charts({ figures }) {
  const { times, step, sum, worst, failed } = merged(figures);
  if (times.length < 2) return html`<p class="notice">Charts appear after two samples, one every ${step ?? 10} s.</p>`;
  /** @type {(title: string, lines: any[], timed?: boolean) => any} */
  const chart = (title, lines, timed) => html`<${Chart} ...${{ title, timed, times }} lines=${lines.map(([label, values, tint = '--accent']) => ({ label, values, tint }))} />`;
  return html`<div class="charts">${[chart('Turns a second', [['turns', sum('turns').map((n) => n / step)]]),
    chart('Failed turns a second', [['failed', failed, '--bad']]),
    chart('Turn time', [['median', worst('median_ms')], ['p95', worst('slow_ms'), '--warn']], true),
    chart('First token', [['median', worst('first_token_median_ms')], ['p95', worst('first_token_slow_ms'), '--warn']], true),
    chart('Turns at once', [['running', sum('running')], ['queued', sum('queued'), '--warn']]),
    chart('Instances', [['instances', sum('instances')]])]}</div>`;
}

/** @param {ReplicaProps} p */
function Replica({ replica }) {
  const now = replica.figures;
  return html`<tr><td><bdi>${short(replica.address, 80)}</bdi>${now && html`<div class="dim">up since ${ago(now.start_time)}</div>`}</td>
    <td>${now ? html`<${Badge} kind=${now.ready ? 'good' : 'bad'}>${now.ready ? 'ready' : 'not ready'}<//>` : html`<${Badge} kind="bad">${clean(replica.problem)}<//>`}
      ${Object.entries(now?.parts ?? {}).map(([name, state]) => html`<div class=${state === 'ok' ? 'hint' : 'wrong'}>${clean(name)}: ${short(state, 200)}</div>`)}</td>
    <td class="number">${now?.running ?? '–'}</td><td class="number">${now?.queued ?? '–'}</td><td class="number">${now?.instances ?? '–'}</td>
    <td>${(now?.providers ?? []).map((one) => html`<${Badge} kind=${GOOD[one.circuit]}>${short(one.name, 30)}: ${one.circuit.replace('_', ' ')}<//> `)}</td></tr>`;
}

function Overview() {
  const { data, error, reload } = useLoad((signal) => get('/v1/replicas', {}, signal), []);
  useEvery(reload, REFRESH_MS);
  if (error) return html`<${Problem} error=${error} />`;
  if (!data) return null;
  const figures = data.data.map((one) => one.figures).filter(Boolean);
  const errors = new Map();
  for (const [code, n] of figures.flatMap((one) => one.samples).flatMap((one) => Object.entries(one.errors))) errors.set(code, (errors.get(code) ?? 0) + n);
  const ready = figures.filter((one) => one.ready).length;
  const serving = data.services.filter((one) => one.state === 'serving').length;
  const well = ready === data.data.length && serving === data.services.length;
  return html`<p class=${`notice ${well ? 'good' : 'bad'}`} role="status">${ready} of ${data.data.length} gateways ready, ${serving} of ${data.services.length} replicas of the services behind them.</p>
    <${Charts} figures=${figures} />
    <section class="card"><h2>Gateways</h2><${Table} label="Gateways" head=${['Gateway', 'State', 'Running', 'Queued', 'Instances', 'Providers']} rows=${data.data.map((one) => html`<${Replica} key=${one.address} replica=${one} />`)} /></section>
    <section class="card"><h2>Services</h2><${Table} label="Services" head=${['Service', 'Replica', 'State', 'Health check']} rows=${data.services.map((one) => html`<tr key=${one.service + one.address}><td>${one.service}</td><td><bdi>${short(one.address, 80)}</bdi></td>
      <td><${Badge} kind=${GOOD[one.state]}>${one.state.replace('_', ' ')}<//></td><td>${duration(one.latency_ms)}</td></tr>`)} /></section>
    <section class="card"><h2>Errors of the last hour</h2>${errors.size ? html`<${Table} label="Errors" head=${['Code', 'Turns']} rows=${[...errors].sort((a, b) => b[1] - a[1]).map(([code, n]) => html`<tr><td><code>${clean(code)}</code></td><td>${n}</td></tr>`)} />` : html`<p class="dim">None.</p>`}</section>`;
}

function Instances() {
  const { data, error } = useLoad((signal) => get('/v1/instances', {}, signal), []);
  return html`<${Problem} error=${error} /><div class="card"><p class="dim">Agents that this gateway has built on demand.</p><${Table} label="Instances" head=${['Agent', 'Revision', 'Template', 'Turns', 'Built', 'Used']} rows=${(data?.data ?? []).map((one) => html`<tr>
    <td><a href=${link('agents', one.agent_id)}>${one.agent_id}</a></td><td class="number">${one.agent_revision}</td><td>${one.template_id}</td><td class="number">${one.turn_count}</td><td>${ago(one.build_time)}</td><td>${ago(one.last_used_time)}</td></tr>`)} /></div>`;
}

/** @param {OperateProps} p */
export default function Operate({ where, caller, may }) {
  const parts = PARTS.filter(([, , scope]) => may(scope));
  const [name, path] = parts.find(([, one]) => one === (where.parts[1] ?? '')) ?? parts[0];
  const shown = { '': Overview, instances: Instances, keys: Keys, projects: Projects, audit: Audit }[path];
  return html`<div class="head"><h1>Operate</h1></div><${Tabs} label="Operate" current=${name} tabs=${parts.map(([title, one]) => [title, one ? link('operate', one) : '#/operate'])} /><${shown} caller=${caller} />`;
}
