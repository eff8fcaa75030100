/** The shell: sign-in, navigation, the current page. */
import { get, tab } from './api.js';
import { comeBack, identify, readAuth, SignIn } from './auth.js';
import { html, instead, place, render, short, useEffect, useLoad, useRef, useState } from './lib.js';
import { Empty, Problem, Select } from './ui.js';

const OPERATE = ['operator', 'runtime:admin', 'keys:admin', 'audit:read'];
/** @type {[string, string, string[], () => Promise<any>][]} */
const PAGES = [
  ['try', 'Try', ['chat'], () => import('./try.js')],
  ['agents', 'Agents', ['agents:read'], () => import('./agents.js')],
  ['sessions', 'Sessions', ['sessions:read'], () => import('./sessions.js')],
  ['operate', 'Operate', OPERATE, () => import('./operate.js')],
];

/** @param {any} caller @param {string[]} scopes */
const mayAny = (caller, scopes) => scopes.some((scope) => caller.scopes.includes(scope));

/** @param {PageProps} p */
function Page({ page, caller, where }) {
  const [name, title, , load] = page;
  const { data, error } = useLoad(load, [name]);
  const main = useRef(null);
  const first = useRef(true);
  const path = where.parts.join('/');
  useEffect(() => {
    document.title = [where.parts[1] && short(where.parts[1], 40), title, 'Parley'].filter(Boolean).join(' · ');
    if (!first.current) main.current?.focus({ preventScroll: true });
    first.current = false;
  }, [path]);
  const may = (/** @type {string} */ scope) => caller.scopes.includes(scope);
  return html`<main id="main" ref=${main} tabindex="-1" key=${name} class=${`page ${name}`}>
    <${Problem} error=${error} />${data && html`<${data.default} where=${where} caller=${caller} may=${may} />`}</main>`;
}

/** @param {ProjectProps} p */
function Project({ caller, onChange }) {
  const { data } = useLoad(async (signal) => (caller.project ? [] : (await get('/v1/projects', { page_size: 1000 }, signal)).data), [caller.id]);
  if (caller.project) return html`<span class="project">Project <bdi>${short(caller.project, 40)}</bdi></span>`;
  if (!data || data.length < 2) return null;
  return html`<${Select} label="Project" value=${tab.project || 'default'} options=${data.map((one) => [one.id, one.id])}
    onInput=${(id) => { tab.project = id; onChange(); }} />`;
}

/** @param {ShellProps} p */
function Shell({ caller, signOut }) {
  const [where, setWhere] = useState(place());
  const [project, setCount] = useState(0);
  useEffect(() => {
    const moved = () => setWhere(place());
    addEventListener('hashchange', moved);
    return () => removeEventListener('hashchange', moved);
  }, []);
  const pages = PAGES.filter(([, , scopes]) => mayAny(caller, scopes));
  const page = pages.find(([name]) => name === where.parts[0]) ?? (where.parts.length ? undefined : pages[0]);
  return html`<a class="skip" href="#main" onClick=${instead(() => document.querySelector('main')?.focus())}>Skip to content</a>
    <header class="side">
      <a class="brand" href="#/"><img src="/console/icon.svg" alt="" width="26" height="26" />Parley</a>
      <nav aria-label="Main">${pages.map(([name, title]) => html`
        <a href=${`#/${name}`} aria-current=${page?.[0] === name ? 'page' : undefined}>${title}</a>`)}</nav>
      <div class="who"><${Project} caller=${caller} onChange=${() => setCount((n) => n + 1)} />
        <span class="name" title=${caller.id}><bdi>${short(caller.user_id ?? caller.id, 40)}</bdi></span>
        ${signOut && html`<button class="quiet" onClick=${signOut}>Sign out</button>`}</div>
    </header>
    ${page ? html`<${Page} key=${`${page[0]} ${project}`} page=${page} caller=${caller} where=${where} />`
    : html`<main id="main" class="page" tabindex="-1"><${Empty} title=${pages.length ? 'Page not found' : 'No access'}>
        ${pages.length ? html`<a href="#/">Home</a>` : 'The scopes of this key allow nothing in the console.'}<//></main>`}`;
}

function App() {
  const [caller, setCaller] = useState(null);
  const { data: auth, error, reload } = useLoad(async () => {
    const found = await readAuth();
    /** @type {any} */
    let problem;
    try {
      const token = found.required ? await comeBack(found) : '';
      if (token || !found.required) setCaller(await identify(token));
    } catch (failure) {
      problem = failure;
    }
    return { ...found, problem };
  }, []);
  const signOut = () => { Object.assign(tab, { key: '', project: '' }); setCaller(null); };
  tab.refused = signOut;
  if (error) return html`<main class="signin"><${Problem} error=${error} /><button onClick=${reload}>Try again</button></main>`;
  if (!auth) return html`<main class="signin" aria-busy="true"><h1>Parley</h1></main>`; // as in index.html
  if (!caller) return html`<${SignIn} auth=${auth} problem=${auth.problem} onCaller=${setCaller} />`;
  return html`<${Shell} caller=${caller} signOut=${auth.required ? signOut : null} />`;
}

render(html`<${App} />`, /** @type {HTMLElement} */ (document.getElementById('app')));
