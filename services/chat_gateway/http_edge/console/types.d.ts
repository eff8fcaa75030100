/** Shapes of the console's components, for `tsc`. The page does not load this file. */

type Setter = { (to: (old: any) => any): void; (to: any): void };
type Act = (...given: any[]) => any;
type Html = (strings: TemplateStringsArray, ...values: (Act | object | string | number | boolean | null | undefined)[]) => any;
type Hooks = {
  useState(initial: any[]): [any[], (to: any[] | ((old: any[]) => any[])) => void];
  useState(initial: any): [any, Setter];
  useRef(initial: any[]): { current: any[] };
  useRef(initial: any): { current: any };
  useEffect(act: () => void, deps?: any[]): void;
  useLayoutEffect(act: () => void, deps?: any[]): void;
};
type Loaded<T> = { data: T | undefined, error: any, loading: boolean, reload: () => void };
type Caller = { id: string, user_id?: string, project?: string, scopes: string[] };
type Where = { parts: string[], query: URLSearchParams };
type Page = [string, string, string[], () => Promise<any>];
type Known = { templates: any[], providers: any[], servers: any[], agents: any[] };
type Draft = {
  value: { [name: string]: any, tools?: any[] }, text: string, problem: string, error: any, busy: boolean, violations: any[], ready: boolean, write: boolean,
  failure: Failure, save: (query?: any) => void,
  wrong: (path: string) => string | undefined, set: (path: string, to: any) => void, setText: (text: string) => void,
};
type Call = { id: string, name: string, arguments: string, server?: string, outcome?: string, ms?: number };
type Turn = {
  asked: any[], body: any, text: string, reasoning: string, refusal: string, calls: Call[], approved: Call[], pending: any[], missing: any[],
  busy: boolean, error: any, first: number | null, total: number | null, usage: any, revision: string, provider: string, session: string,
  expires: string, id: string, prompt: any, finish: string,
};
type Target = { agent: string, revision: string, session: string, user: string };
type Answer = { [name: string]: any, data: any[], services: any[], differences: any[], issuers: any[], required: boolean };
type Auth = { [name: string]: any, issuers: any[], required: boolean };
type Failure = { [name: string]: any, message: string, violations?: { field: string, description: string }[] } | null;
type Message = { [name: string]: any, tool_calls?: any[] };
type Options = { query?: Record<string, any>, body?: any, headers?: Record<string, string>, signal?: AbortSignal };
type Plot = { [name: string]: any, data: any[][] };
type Key = { [name: string]: any, id: string, scopes: string[], limits: { requests_per_minute?: number, concurrent_turns?: number } };
type Schema = { [name: string]: any, anyOf?: any[], oneOf?: any[] };

type LaterProps = {agent: any};
type SignInProps = {auth: Auth, problem: any, onCaller: (caller: any) => void};
type ChartProps = {title: string, times: number[], lines: {label: string, values: (number | null)[], tint: string}[], timed?: boolean};
type ResultsProps = {calls: any[], onResults: (messages: any[]) => void};
type CodeProps = {body: any, onClose: () => void};
type MarkdownProps = {text: string};
type JsonProps = {label: string, value: any, onInput: (value: any) => void, error?: string, hint?: string};
type PropertyProps = {name: string, schema: any, root: any, value: any, required: boolean, onInput: (value: any) => void, error?: string};
type SchemaFormProps = {schema: any, value: any, path: string, wrong: (path: string) => string | undefined, set: (path: string, value: any) => void};
type LiveProps = {session: any, onEnd: () => void};
type ContentProps = {content: any};
type FactsProps = {turn: any, onCode: () => void};
type FieldProps = {label: string, error?: string, hint?: any, children?: any, wide?: boolean, input: (attributes: any) => any};
type TextProps = {label: string, value: any, onInput: (value: string) => void, [name: string]: any};
type SelectProps = {label: string, value: any, options: (string | [string, string])[], onInput: (value: string) => void, [name: string]: any};
type CheckProps = {label: string, value: boolean, onInput: (value: boolean) => void};
type ProblemProps = {error: Failure};
type EmptyProps = {title: string, children?: any, action?: any};
type BadgeProps = {kind?: string, children?: any};
type TimeProps = {value?: string};
type SaidProps = {value: any, max?: number};
type PreProps = {value: any, max?: number};
type TableProps = {head: any[], rows: any[], label: string};
type TabsProps = {tabs: [string, string][], current: string, label: string};
type CopyProps = {text: string, label?: string};
type DialogProps = {title: string, onClose: () => void, children?: any};
type ConfirmProps = {label: string, question: any, word?: string, act: () => Promise<any>, kind?: string};
type ToolsProps = {draft: Draft, known: Known, id: string};
type FormProps = {draft: Draft, known: Known, isNew: boolean};
type EditorProps = {agent: any, isNew?: boolean, onSaved: (...given: any[]) => any, readOnly?: boolean};
type AgentProps = {id: string, tab: string, may: (scope: string) => boolean};
type RowProps = {agent: any, may: (scope: string) => boolean, onChange: (...given: any[]) => any};
type ListProps = {may: (scope: string) => boolean};
type AgentTabsProps = {current: string};
type AgentsProps = {where: Where, may: (scope: string) => boolean};
type PageProps = {page: Page, caller: Caller, where: Where};
type ProjectProps = {caller: Caller, onChange: (...given: any[]) => any};
type ShellProps = {caller: Caller, signOut: (...given: any[]) => any};
type ApprovalsProps = {turn: Turn, onAnswer: (...given: any[]) => any};
type TurnProps = {turn: Turn, last: boolean, onAnswer: (...given: any[]) => any, onResults: (...given: any[]) => any};
type ColumnProps = {target: Target, handle: (what: { say: Act, stop: Act, clear: Act }) => void, onSession: (...given: any[]) => any, onBusy: (...given: any[]) => any};
type YamlProps = {draft: Draft};
type VerdictProps = {draft: Draft};
type NewKeyProps = {caller: Caller, onClose: (...given: any[]) => any, onMade: (...given: any[]) => any};
type KeysProps = {caller: Caller};
type ChartsProps = {figures: any[]};
type ReplicaProps = {replica: { address: string, problem?: string, figures?: { [name: string]: any, providers: any[], parts: { [name: string]: string } } }};
type OperateProps = {where: Where, caller: Caller, may: (scope: string) => boolean};
type DifferenceProps = {id: string, from: number, to: number};
type RevisionsProps = {agent: any, may: (scope: string) => boolean, onChange: (...given: any[]) => any};
type SessionTurnProps = {before: Message[], after: Message[], messages: Message[], session: any, may: (scope: string) => boolean};
type SessionProps = {id: string, may: (scope: string) => boolean};
type UserProps = {caller: Caller, given: any, may: (scope: string) => boolean, onClose: (...given: any[]) => any, onErased: (...given: any[]) => any};
type SessionsListProps = {where: Where, caller: Caller, may: (scope: string) => boolean};
type SessionsProps = {where: Where, caller: Caller, may: (scope: string) => boolean};
type ToolServersProps = {may: (scope: string) => boolean};
type TestProps = {id: string};
type ToolServersEditorProps = {server: any, isNew: boolean, may: (scope: string) => boolean, onSaved: (...given: any[]) => any};
type ToolServerProps = {id: string, may: (scope: string) => boolean};
type PicturesProps = {pictures: string[], setPictures: (...given: any[]) => any};
type ComposerProps = {busy: any, onSend: (...given: any[]) => any, onStop: (...given: any[]) => any, onPrompt: (...given: any[]) => any};
type TargetProps = {label: string, agents: any[], target: Target, onChange: (...given: any[]) => any};
type TryProps = {where: Where, caller: Caller, may: (scope: string) => boolean};
type ReasoningProps = {text: string, open?: boolean};
type ToolCallProps = {call: any, result: any};
type PromptProps = {prompt: { [name: string]: any, messages: Message[], tools: any[], unavailable_tool_servers: any[] }, onClose: (...given: any[]) => any};
type AnswerProps = {text: string, busy: any};
type SpokenProps = {reasoning?: string, open?: boolean, calls: Call[], results?: Map<string, any>, text?: string, busy?: boolean, refusal?: string};
