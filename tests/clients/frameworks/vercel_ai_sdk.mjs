// The Vercel AI SDK: two questions in one conversation; the first one takes many rounds of a tool.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, agent, ...runs] = process.argv.slice(2);
const tools = {
  look_up: tool({
    description: "Look a number up.",
    inputSchema: z.object({ number: z.number().int() }),
    execute: async ({ number }) => `found ${number}`,
  }),
};

async function talk(how, session) {
  const headers = session ? { "X-Session-ID": session } : {};
  const provider = createOpenAICompatible({ name: "parley", baseURL, apiKey: "unused", headers });
  const answers = [];
  let messages = [];
  for (const content of ["count", "and now?"]) {
    messages = [...messages, { role: "user", content }];
    const asked = { model: provider(agent), tools, messages, stopWhen: stepCountIs(200), maxRetries: 0 };
    const result = how === "stream" ? streamText(asked) : await generateText(asked);
    answers.push(await result.text);
    messages = [...messages, ...(await result.response).messages];
  }
  return answers;
}

for (const run of runs) console.log(JSON.stringify(await talk(...run.split(":"))));
