/** Shapes of the console's components, for `tsc`. The page does not load this file. */

type LaterProps = {agent: any};
type SignInProps = {auth: any, problem: any, onCaller: (caller: any) => void};
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
type ProblemProps = {error: any};
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
