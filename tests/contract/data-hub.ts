/** What every confidential data hub does, wherever it runs. */
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { HakoError } from "#base/error.ts";
import type { DataHub } from "#cdh/hub.ts";
import { encryptGcm, type Seal, vault } from "../support/sealed-secret.ts";

export interface DataHubFixture extends AsyncDisposable {
  readonly hub: DataHub;
  /** Makes sealed secrets that the hub can open; its resources are those of tests/support/sealed-secret.ts. */
  readonly seal: Seal;
}

async function codeOf(call: Promise<unknown>): Promise<string> {
  try {
    await call;
    return "OK";
  } catch (error) {
    return error instanceof HakoError ? error.code : String(error);
  }
}

export function dataHubContract(name: string, open: () => Promise<DataHubFixture>): void {
  describe(`${name}: the contract of data hubs`, () => {
    let fixture: DataHubFixture;
    beforeAll(async () => {
      fixture = await open();
    });
    afterAll(async () => await fixture[Symbol.asyncDispose]());

    const unseal = async (text: string) =>
      Buffer.from(await fixture.hub.unsealSecret(Buffer.from(text))).toString();

    test("is there, and says where", () => {
      expect(fixture.hub.isAvailable()).toBe(true);
      expect(fixture.hub.place).not.toBe("");
    });

    test("gets resources", async () => {
      const bytes = await fixture.hub.getResource("kbs:///default/secret/binary");
      expect([...bytes]).toEqual([0, 255, 254]);
      const named = await fixture.hub.getResource("kbs://broker.example:8080/default/secret/password");
      expect(Buffer.from(named).toString()).toBe("open sesame");
    });

    test("says which resources are not there or have no name", async () => {
      expect(await codeOf(fixture.hub.getResource("kbs:///default/secret/nothing"))).toBe("NOT_FOUND");
      for (const uri of ["", "default/secret/password", "kbs:///a/b", "kbs:///a/../b/c", "http://a/b/c"]) {
        expect(await codeOf(fixture.hub.getResource(uri))).toBe("INVALID_ARGUMENT");
      }
      expect(await codeOf(fixture.hub.getResource("kbs+other:///default/secret/password"))).toBe("NOT_FOUND");
    });

    test("opens secrets that name a resource", async () => {
      expect(await unseal(await fixture.seal(vault("kbs:///default/secret/password")))).toBe("open sesame");
      const provisioned = await fixture.seal(vault("kbs:///default/secret/password"), { kid: "provisioned" });
      expect(await unseal(`${provisioned}\n`)).toBe("open sesame");
    });

    test("opens envelopes", async () => {
      const kek = Buffer.alloc(32, 7);
      const key = Buffer.alloc(32, 1);
      const [keyIv, iv] = [Buffer.alloc(12, 2), Buffer.alloc(12, 3)];
      const envelope = {
        version: "0.1.0",
        type: "envelope",
        provider: "kbs",
        key_id: "kbs:///default/key/kek",
        encrypted_key: (await encryptGcm(kek, keyIv, key)).toString("base64"),
        encrypted_data: (await encryptGcm(key, iv, Buffer.from("in an envelope"))).toString("base64"),
        wrap_type: "A256GCM",
        iv: iv.toString("base64"),
        provider_settings: {},
        annotations: { iv: keyIv.toString("base64") },
      };
      expect(await unseal(await fixture.seal(envelope))).toBe("in an envelope");
      const changed = { ...envelope, encrypted_data: envelope.encrypted_key };
      expect(await codeOf(unseal(await fixture.seal(changed)))).toBe("PERMISSION_DENIED");
    });

    test("refuses what is signed by nobody, by others, or not at all", async () => {
      const good = await fixture.seal(vault("kbs:///default/secret/password"));
      const [prefix, header, payload, signature] = good.split(".");
      const other = Buffer.from(JSON.stringify(vault("kbs:///default/key/kek"))).toString("base64url");
      expect(await codeOf(unseal(`${prefix}.${header}.${other}.${signature}`))).toBe("PERMISSION_DENIED");
      const zero = Buffer.alloc(64).toString("base64url");
      expect(await codeOf(unseal(`${prefix}.${header}.${payload}.${zero}`))).toBe("PERMISSION_DENIED");
      const resource = vault("kbs:///default/secret/password");
      for (const alg of ["none", "HS256", "RS256"]) {
        expect(await codeOf(unseal(await fixture.seal(resource, { alg })))).toBe("INVALID_ARGUMENT");
      }
      expect(await codeOf(unseal(await fixture.seal(resource, { kid: "../provisioned" })))).toBe(
        "INVALID_ARGUMENT",
      );
      expect(await codeOf(unseal(await fixture.seal(resource, { kid: "unknown" })))).toBe("NOT_FOUND");
      const notAKey = { kid: "kbs:///default/secret/password" };
      expect(await codeOf(unseal(await fixture.seal(resource, notAKey)))).toBe("INVALID_ARGUMENT");
    });

    test("refuses what is no secret", async () => {
      for (const text of ["", "sealed.", "sealed.a.b", "open.a.b.c", "sealed.a.b.c.d", "sealed.!.b.c"]) {
        expect(await codeOf(unseal(text))).toBe("INVALID_ARGUMENT");
      }
      for (const more of [{ version: "9" }, { type: "box" }, { name: 5 }]) {
        expect(await codeOf(unseal(await fixture.seal(vault("kbs:///a/b/c", more))))).toBe(
          "INVALID_ARGUMENT",
        );
      }
      const cloud = await fixture.seal(vault("x", { provider: "aliyun" }));
      expect(await codeOf(unseal(cloud))).toBe("UNIMPLEMENTED");
    });

    test("wraps keys and gives them back, also from packets of version 1", async () => {
      const key = crypto.getRandomValues(new Uint8Array(100));
      const packet = await fixture.hub.wrapKey({ key, keyId: "kbs:///default/key/kek" });
      expect(Buffer.from(await fixture.hub.unwrapKey(packet))).toEqual(Buffer.from(key));
      const { kid, wrapped_data, iv, wrap_type } = JSON.parse(Buffer.from(packet).toString());
      const old = Buffer.from(JSON.stringify({ kid, wrapped_data, iv, wrap_type }));
      expect(Buffer.from(await fixture.hub.unwrapKey(old))).toEqual(Buffer.from(key));
      const changed = Buffer.from(JSON.stringify({ kid, wrapped_data: iv + wrapped_data, iv, wrap_type }));
      expect(await codeOf(fixture.hub.unwrapKey(changed))).toBe("PERMISSION_DENIED");
      const noKey = { key, keyId: "kbs:///default/secret/password" };
      expect(await codeOf(fixture.hub.wrapKey(noKey))).toBe("INVALID_ARGUMENT");
    });

    test("says what it does not do yet", async () => {
      const mount = {
        volumeType: "block-device",
        options: { encryptionType: "zfs" },
        flags: [],
        mountPoint: "/m",
      };
      expect(await codeOf(fixture.hub.secureMount(mount))).toBe("UNIMPLEMENTED");
      const pull = { imageUrl: "registry.example/image", bundlePath: "/b" };
      expect(await codeOf(fixture.hub.pullImage(pull))).toBe("UNIMPLEMENTED");
    });

    test("serves many callers at once", async () => {
      const secret = await fixture.seal(vault("kbs:///default/secret/password"));
      const calls = Array.from({ length: 200 }, async (_, index) =>
        index % 2 === 0
          ? unseal(secret)
          : Buffer.from(await fixture.hub.getResource("kbs:///default/secret/password")).toString(),
      );
      expect(new Set(await Promise.all(calls))).toEqual(new Set(["open sesame"]));
    });

    test("ends a call with its signal", async () => {
      const signal = AbortSignal.abort();
      expect(await codeOf(fixture.hub.getResource("kbs:///default/secret/password", signal))).not.toBe("OK");
    });
  });
}
