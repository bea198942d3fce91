import { assert, assertEquals } from "@std/assert";
import { RecentMap } from "../../core/recent_map.ts";

Deno.test("RecentMap keeps what is used and never more than its limit", () => {
  const map = new RecentMap<string>(8);
  map.set(0, "used");
  for (let key = 1; key < 100; key++) {
    map.set(key, `${key}`);
    assert(map.size <= 8, `${map.size} entries after ${key}`);
    assertEquals(map.get(0), "used");
    // Those set last are there, whatever was dropped.
    for (let last = Math.max(1, key - 2); last <= key; last++) assertEquals(map.get(last), `${last}`);
  }
  assertEquals(map.get(1), undefined);
});

Deno.test("RecentMap has each key once, whatever is done with it", () => {
  const map = new RecentMap<number>(16), model = new Map<number, number>();
  let random = 1;
  const next = (below: number) => (random = random * 48271 % 2147483647) % below;
  for (let step = 0; step < 10_000; step++) {
    const key = next(12);
    if (next(3) === 0) {
      map.delete(key);
      model.delete(key);
    } else {
      map.set(key, step);
      model.set(key, step);
    }
    const found = next(12), value = map.get(found);
    assert(value === undefined || value === model.get(found), `step ${step}: ${found} is ${value}`);
    const keys = [...map.keys()];
    assertEquals(new Set(keys).size, keys.length);
    assertEquals(map.size, keys.length);
    assertEquals([...map.values()].length, keys.length);
  }
});

Deno.test("RecentMap tells of every value that has to go, and of no other", () => {
  const dropped: number[] = [], map = new RecentMap<number>(4, (value) => dropped.push(value));
  map.set(1, 1);
  map.delete(1);
  map.set(2, 20);
  map.set(2, 2);
  for (let key = 3; key < 20; key++) map.set(key, key);
  const kept = [...map.values()];
  assertEquals([...dropped, ...kept].toSorted((a, b) => a - b), Array.from({ length: 18 }, (_, i) => i + 2));
});
