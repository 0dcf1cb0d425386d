// Everything that OpenAI's own client for Node does with files and batches, by OPENAI_BASE_URL alone.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const ROWS = 3;
const ENDED = ["completed", "failed", "expired", "cancelled"];
const client = new OpenAI({ maxRetries: 0 });

const line = (number) => {
  const body = { model: "gpt-4o-mini", messages: [{ role: "user", content: `Row ${number}.` }] };
  return JSON.stringify({ custom_id: `r${number}`, method: "POST", url: "/v1/chat/completions", body }) + "\n";
};
const upload = async (text) => client.files.create({ file: await toFile(Buffer.from(text), "rows.jsonl"), purpose: "batch" });
const order = (file) => ({ input_file_id: file.id, endpoint: "/v1/chat/completions", completion_window: "24h" });
const ended = async (batch) => {
  while (!ENDED.includes(batch.status)) {
    await new Promise((done) => setTimeout(done, 300));
    batch = await client.batches.retrieve(batch.id);
  }
  return batch;
};
const all = async (pages) => {
  const found = [];
  for await (const one of pages) found.push(one.id);
  return found;
};

// Files.
const text = Array.from({ length: ROWS }, (_, number) => line(number)).join("");
const file = await upload(text);
assert.equal(file.bytes, Buffer.byteLength(text));
assert.equal((await client.files.waitForProcessing(file.id)).status, "processed");
assert.equal(await (await client.files.content(file.id)).text(), text);
const others = [await upload(line(7)), await upload(line(8))];
const files = await all(client.files.list({ limit: 1, purpose: "batch" }));
assert.deepEqual(files.slice(0, 3), [others[1].id, others[0].id, file.id]);
assert.equal(new Set(files).size, files.length);
assert.deepEqual((await client.files.delete(others[0].id)).deleted, true);
await assert.rejects(client.files.retrieve(others[0].id), OpenAI.NotFoundError);
assert.ok((await all(client.models.list())).includes("gpt-4o-mini"));
assert.equal((await client.models.retrieve("gpt-4o-mini")).object, "model");

// A batch.
const headers = { "Idempotency-Key": `node-${file.id}` };
const made = await client.batches.create({ ...order(file), metadata: { team: "search" } }, { headers });
assert.equal(made.status, "validating");
const again = await client.batches.create({ ...order(file), metadata: { team: "search" } }, { headers });
assert.equal(again.id, made.id);
await assert.rejects(client.batches.create(order(file), { headers }), OpenAI.ConflictError);
const done = await ended(made);
assert.equal(done.status, "completed", JSON.stringify(done));
assert.deepEqual(done.request_counts, { total: ROWS, completed: ROWS, failed: 0 });
const answers = (await (await client.files.content(done.output_file_id)).text()).trimEnd().split("\n").map(JSON.parse);
assert.deepEqual(answers.map((one) => one.custom_id), ["r0", "r1", "r2"]);
assert.ok(answers.every((one) => one.response.body.choices[0].message.content));
await assert.rejects(client.batches.cancel(done.id), OpenAI.ConflictError);

// Batches that come to nothing, and their place in the list.
const broken = await ended(await client.batches.create(order(await upload(line(1) + "{}\n"))));
assert.equal(broken.status, "failed");
assert.equal(broken.errors.data[0].line, 2);
const stopped = await client.batches.create(order(others[1]));
assert.ok(["cancelling", "cancelled", "completed"].includes((await ended(await client.batches.cancel(stopped.id))).status));
const batches = await all(client.batches.list({ limit: 1 }));
assert.deepEqual(batches.slice(0, 3), [stopped.id, broken.id, made.id]);
assert.equal(new Set(batches).size, batches.length);

// Errors have the classes that programs catch.
await assert.rejects(client.batches.retrieve("batch_none"), OpenAI.NotFoundError);
await assert.rejects(client.batches.create({ ...order(file), endpoint: "/v1/nothing" }), OpenAI.BadRequestError);
await assert.rejects(upload("no JSON"), OpenAI.BadRequestError);
const stranger = new OpenAI({ apiKey: "not-a-key", maxRetries: 0 });
await assert.rejects(stranger.batches.list(), OpenAI.AuthenticationError);

console.log(JSON.stringify({ rows: answers.length }));
