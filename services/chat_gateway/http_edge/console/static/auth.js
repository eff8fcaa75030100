/** Signing in: with an API key, or with an identity provider (authorization code with PKCE, RFC 7636). */
import { get, tab } from './api.js';
import { html, instead, useState } from './lib.js';
import { Problem, Text } from './ui.js';

const KEPT = 'parley.login';
const CALLBACK = () => `${location.origin}/console`;

/** @param {Uint8Array} bytes */
const base64url = (bytes) => btoa(String.fromCharCode(...bytes)).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

/** @param {any} issuer */
async function endpoints(issuer) {
  if (issuer.authorization_url && issuer.token_url) return issuer;
  const response = await fetch(`${issuer.issuer.replace(/\/$/, '')}/.well-known/openid-configuration`, { credentials: 'omit' });
  const found = await response.json();
  if (found.issuer !== issuer.issuer) throw new Error('The identity provider’s discovery document names another issuer.');
  return { authorization_url: issuer.authorization_url ?? found.authorization_endpoint, token_url: issuer.token_url ?? found.token_endpoint };
}

/** Goes to the identity provider. What is kept in this tab until the return is no credential. @param {any} issuer */
async function leave(issuer) {
  const { authorization_url } = await endpoints(issuer);
  const verifier = random();
  const state = random();
  const digest = await crypto.subtle.digest('SHA-256', new TextEncoder().encode(verifier));
  sessionStorage.setItem(KEPT, JSON.stringify({ verifier, state, issuer: issuer.issuer, hash: location.hash }));
  const url = new URL(authorization_url);
  const asked = {
    response_type: 'code', client_id: issuer.client_id, redirect_uri: CALLBACK(), scope: issuer.scopes.join(' '), state,
    code_challenge: base64url(new Uint8Array(digest)), code_challenge_method: 'S256',
  };
  for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value);
  location.assign(url.href);
}

/** Completes a login if this page is its redirect. @param {Auth} auth @returns {Promise<string>} a token, or '' */
export async function comeBack(auth) {
  const said = new URLSearchParams(location.search);
  const kept = JSON.parse(sessionStorage.getItem(KEPT) ?? 'null');
  sessionStorage.removeItem(KEPT);
  if (!said.has('state')) return '';
  history.replaceState(null, '', `/console${kept?.hash ?? ''}`);
  const issuer = auth.issuers.find((one) => one.issuer === kept?.issuer);
  if (!issuer || said.get('state') !== kept.state || (said.get('iss') ?? issuer.issuer) !== issuer.issuer) {
    throw new Error('This login did not start in this tab. Please try again.');
  }
  if (said.has('error')) throw new Error(said.get('error_description') ?? said.get('error') ?? '');
  const { token_url } = await endpoints(issuer);
  const response = await fetch(token_url, {
    method: 'POST',
    credentials: 'omit',
    body: new URLSearchParams({
      grant_type: 'authorization_code', code: said.get('code') ?? '', redirect_uri: CALLBACK(), client_id: issuer.client_id,
      code_verifier: kept.verifier,
    }),
  });
  const tokens = await response.json();
  if (!response.ok || !tokens[issuer.token]) throw new Error(tokens.error_description ?? tokens.error ?? 'The identity provider returned no token.');
  return tokens[issuer.token];
}

/** Returns the caller of a key, and makes it the key of this tab. @param {string} key */
export async function identify(key) {
  tab.key = key;
  try {
    return await get('/v1/caller');
  } catch (error) {
    tab.key = '';
    throw error;
  }
}

/** @param {SignInProps} p */
export function SignIn({ auth, problem, onCaller }) {
  const [key, setText] = useState('');
  const [error, setError] = useState(problem);
  const [busy, setBusy] = useState(false);
  const submit = async () => {
    setBusy(true);
    await identify(key.trim()).then(onCaller, setError);
    setBusy(false);
  };
  return html`<main class="signin"><form onSubmit=${instead(submit)}>
    <img src="/console/icon.svg" alt="" width="44" height="44" />
    <h1>Sign in to Parley</h1>
    <${Problem} error=${error} />
    ${auth.issuers.map((one) => html`<button type="button" class="primary" onClick=${() => leave(one).catch(setError)}>
      Continue with ${new URL(one.issuer).host}</button>`)}
    ${auth.issuers.length > 0 && html`<p class="or">or</p>`}
    <${Text} label="API key" type="password" value=${key} onInput=${setText} autocomplete="off" spellcheck=${false}
      hint="Kept in the memory of this tab only; reloading signs out." />
    <button class=${auth.issuers.length ? '' : 'primary'} disabled=${!key.trim() || busy}>Sign in</button>
  </form></main>`;
}

/** How to sign in, and the address of the gRPC API for code examples. */
export async function readAuth() {
  const auth = await get('/v1/auth');
  tab.grpc = auth.grpc_target ?? `${location.hostname}:${auth.grpc_port ?? 'PORT'}`;
  return auth;
}
