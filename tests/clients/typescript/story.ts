// The whole story of an instance snapshot, by a client that knows the service by its OpenAPI document alone.
//
// Arguments: the URL of the service, a project's id, the id of a running instance with two volumes. The restore of the
// second one is to fail until a line comes in; "mend" is printed when it is waited for.

import assert from "node:assert/strict";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";

import createClient from "openapi-fetch";

import type { components, paths } from "./openapi.d.ts";

type Action = "VmSnapshotAction" | "VmRestoreAction" | "VmRestoreActionUnderscored";
type Progress = components["schemas"]["ProgressDetails"];

const [, , baseUrl = "", project_id = "", server_id = ""] = process.argv;
const client = createClient<paths>({ baseUrl });

async function act(body: components["schemas"][Action]) {
  return client.POST("/compute/v2.1/{project_id}/servers/{server_id}/action", {
    params: { path: { project_id, server_id } },
    body,
  });
}

async function restored(body: components["schemas"]["VmRestore"]): Promise<string> {
  const { data, response } = await act({ "vm-restore": body });
  assert.equal(response.status, 202);
  assert(data && "task_uri" in data);
  return data.task_uri;
}

async function endOf(taskUri: string): Promise<Progress> {
  const query = new URL(taskUri).searchParams;
  const [action, task_id, id] = ["action", "task_id", "id"].map((name) => query.get(name) ?? "");
  const until = Date.now() + 60_000;
  while (Date.now() < until) {
    const { data, response } = await client.GET("/volume/v3/{project_id}/instance-snapshots/get_progress", {
      params: { path: { project_id }, query: { action: action as Actions, task_id: task_id!, id: id! } },
    });
    assert(data, `progress answers with ${response.status}`);
    if (Object.keys(data.details.pending_tasks).length === 0) return data.details;
    await sleep(20);
  }
  throw new Error(`the task did not end: ${taskUri}`);
}

type Actions = paths["/volume/v3/{project_id}/instance-snapshots/get_progress"]["get"]["parameters"]["query"]["action"];

async function show(id: string): Promise<components["schemas"]["SnapshotView"]> {
  const { data, response } = await client.GET("/volume/v3/{project_id}/instance-snapshots/{id}", {
    params: { path: { project_id, id } },
  });
  assert(data, `show answers with ${response.status}`);
  return data.instance_snapshot;
}

const { data: listed } = await client.GET("/compute/v2.1/{project_id}/servers/detail", {
  params: { path: { project_id }, query: { all_tenants: "false" } },
});
assert.deepEqual(listed?.servers.map((one) => one.id), [server_id]);

const created = await act({ "vm-snapshot": { name: "nightly" } });
assert(created.data && "instance_snapshot" in created.data);
const { id, task_uri } = created.data.instance_snapshot;
const made = await endOf(task_uri);
assert.equal(made.progress, 100);
assert.equal(made.fault, null);
assert.equal(made.completed_tasks["SnapshotDone"], "SUCCESS");

const updated = await client.PUT("/volume/v3/{project_id}/instance-snapshots/{id}", {
  params: { path: { project_id, id } },
  body: { "instance-snapshot": { name: "weekly", description: "by a generated client" } },
});
assert.equal(updated.data?.instance_snapshot.id, id);
const shown = await show(id);
assert.deepEqual([shown.name, shown.description, shown.status], ["weekly", "by a generated client", "available"]);
assert.equal(Object.keys(shown.snapshots ?? {}).length, 2);

const unforced = await act({ "vm-restore": { instance_snapshot_id: id } });
assert.equal(unforced.response.status, 400);
assert(unforced.error && "badRequest" in unforced.error);
assert.match(unforced.error.badRequest.message, /force/);

const failed = await endOf(await restored({ instance_snapshot_id: id, force: true }));
assert.equal(failed.flow_details["InstRestoreFlow"], "FAILURE");
assert.match(failed.fault?.message ?? "", /broken by the test/);
assert.equal(Object.keys((await show(id)).failed_snapshots ?? {}).length, 1);

console.log("mend");
await once(process.stdin, "data");
process.stdin.destroy();
const back = await endOf(await restored({ instance_snapshot_id: id, rollback: "True", force: "true" }));
assert.equal(back.progress, 100);
const again = await endOf(await restored({ instance_snapshot_id: id, force: true }));
assert.equal(again.flow_details["InstRestoreFlow"], "SUCCESS");

const retried = await act({ vm_restore: { instance_snapshot_id: id, retry: true, force: true } });
assert.equal(retried.response.status, 400);
assert(retried.error && "badRequest" in retried.error);
assert.match(retried.error.badRequest.message, /restore-error/);

const gone = await client.DELETE("/volume/v3/{project_id}/instance-snapshots/{id}", {
  params: { path: { project_id, id } },
});
assert(gone.data, `delete answers with ${gone.response.status}`);
assert.equal((await endOf(gone.data.task_uri)).flow_details["InstSnapshotDeleteFlow"], "SUCCESS");
const missing = await client.GET("/volume/v3/{project_id}/instance-snapshots/{id}", {
  params: { path: { project_id, id } },
});
assert(missing.error && "itemNotFound" in missing.error);
assert.equal(missing.error.itemNotFound.code, 404);
console.log("done");
