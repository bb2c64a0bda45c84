/** Whether this process may start others: `deno test --allow-net` may not. */
export function mayRun(): boolean {
  const deno = (globalThis as { Deno?: typeof Deno }).Deno;
  if (deno === undefined) return true;
  return deno.permissions.querySync({ name: "run" }).state === "granted" &&
    deno.permissions.querySync({ name: "read" }).state === "granted" &&
    deno.permissions.querySync({ name: "env" }).state === "granted";
}
