/** Loads what this folder's package.json names; it need not be there to check the types. */

/** The exports of a package, of which `T` says what is used. */
export async function load<T>(name: string): Promise<T> {
  return await import(name) as T;
}
