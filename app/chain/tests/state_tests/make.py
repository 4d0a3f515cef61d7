"""Random state tests in the format of GeneralStateTests, with results of the executable specification (EELS)."""

import io
import json
import random
import sys

from coincurve import PrivateKey
from ethereum.crypto.hash import keccak256
from ethereum_rlp import rlp
from ethereum_spec_tools.evm_tools import main as evm_tools

FORKS = ["Cancun", "Prague", "Osaka"]
KEY = "0x45a915e4d060149eb4365960e6a7a45f334393093061116b197e3240065ff2d8"
SENDER = "0xa94f5374fce5edbc8e2a8697c15331677e6ebf0b"
CONTRACTS = [0x1000 + 0x100 * i for i in range(4)]
EMPTY = 0x7777
COINBASE = "0x2adc25665018aa1fe0e6bc666dac8fc2697ff9ba"


def address_of(key):
    point = PrivateKey(bytes.fromhex(key[2:])).public_key.format(compressed=False)[1:]
    return "0x" + keccak256(point)[12:].hex()


def push(value):
    data = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
    return bytes([0x5F + len(data)]) + data


class Program:
    """Code that keeps its stack: every snippet leaves it as deep as it found it, plus its results."""

    BINARY = [0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0A, 0x0B, 0x10, 0x11, 0x12, 0x13, 0x14, 0x16, 0x17, 0x18, 0x1A, 0x1B, 0x1C, 0x1D]
    NULLARY = [0x30, 0x32, 0x33, 0x34, 0x36, 0x38, 0x3A, 0x3D, 0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x4A, 0x58, 0x59, 0x5F]

    def __init__(self, rng, own):
        self.rng, self.own, self.code, self.depth = rng, own, b"", 0

    def number(self):
        kind = self.rng.randrange(6)
        if kind < 3:
            return self.rng.randrange(40)
        return [self.rng.randrange(1 << 64), self.rng.randrange(1 << 256), (1 << 256) - 1 - self.rng.randrange(9)][kind - 3]

    def target(self):
        known = CONTRACTS + [EMPTY, int(SENDER, 16), int(COINBASE, 16)] + list(range(1, 0x12))
        return self.rng.choice(known)

    def emit(self, *parts):
        for part in parts:
            self.code += bytes([part]) if isinstance(part, int) else part

    def value(self):
        """Leaves one value more."""
        rng = self.rng
        kind = rng.randrange(12)
        if kind < 4 or self.depth < 2:
            self.emit(push(self.number()))
            self.depth += 1
        elif kind < 6:
            self.emit(rng.choice(self.NULLARY))
            self.depth += 1
        elif kind == 6:
            self.emit(0x80 + rng.randrange(min(self.depth, 16)))
            self.depth += 1
        elif kind == 7:
            self.emit(push(rng.randrange(8)), rng.choice([0x54, 0x5C]))  # SLOAD, TLOAD
            self.depth += 1
        elif kind == 8:
            self.emit(push(rng.randrange(256)), rng.choice([0x51, 0x35]))  # MLOAD, CALLDATALOAD
            self.depth += 1
        elif kind == 9:
            self.emit(push(self.target()), rng.choice([0x31, 0x3B, 0x3F]))  # BALANCE, EXTCODESIZE, EXTCODEHASH
            self.depth += 1
        elif kind == 10:
            self.emit(push(rng.randrange(70)), push(rng.randrange(200)), 0x20)  # KECCAK256
            self.depth += 1
        else:
            self.emit(rng.choice(self.BINARY))
            self.depth -= 1

    def effect(self):
        """Uses values."""
        rng = self.rng
        kind = rng.randrange(14)
        while self.depth < 4:
            self.value()
        if kind < 3:
            self.emit(push(rng.randrange(8)), 0x55)  # SSTORE
            self.depth -= 1
        elif kind == 3:
            self.emit(push(rng.randrange(8)), 0x5D)  # TSTORE
            self.depth -= 1
        elif kind < 6:
            self.emit(push(rng.randrange(256)), rng.choice([0x52, 0x53]))  # MSTORE, MSTORE8
            self.depth -= 1
        elif kind == 6:
            topics = rng.randrange(5)
            while self.depth < topics:
                self.value()
            self.emit(push(rng.randrange(60)), push(rng.randrange(200)), 0xA0 + topics)
            self.depth -= topics
        elif kind == 7:
            sources = [0x37, 0x39, 0x5E, 0x3C]
            op = rng.choice(sources)  # CALLDATACOPY, CODECOPY, MCOPY, EXTCODECOPY
            self.emit(push(rng.randrange(90)), push(rng.randrange(90)), push(rng.randrange(200)))
            if op == 0x3C:
                self.emit(push(self.target()))
            self.emit(op)
        elif kind < 11:
            op = rng.choice([0xF1, 0xF1, 0xF2, 0xF4, 0xFA])
            self.emit(push(rng.randrange(64)), push(rng.randrange(200)), push(rng.randrange(100)), push(rng.randrange(100)))
            if op in (0xF1, 0xF2):
                self.emit(push(rng.choice([0, 0, 0, 1, 5])))
            self.emit(push(self.target()), push(rng.choice([0, 2300, 30000, 100000, 1 << 40])), op)
            self.depth += 1
        elif kind == 11:
            init = self.initcode()
            padded = init.ljust(32, b"\0")[:32]
            self.emit(push(int.from_bytes(padded, "big")), push(0), 0x52)
            op = rng.choice([0xF0, 0xF5])
            if op == 0xF5:
                self.emit(push(rng.randrange(3)))
            self.emit(push(len(init)), push(0), push(rng.choice([0, 0, 1])), op)
            self.depth += 1
        elif kind == 12:
            # A jump forward over something that would fail.
            place = len(self.code)
            self.emit(b"\x61" + (place + 3 + 1 + 1).to_bytes(2, "big"), 0x56, 0xFE, 0x5B)
        else:
            self.emit(0x50)
            self.depth -= 1

    def initcode(self):
        """At most 32 bytes: deploys nothing, something, or fails."""
        rng = self.rng
        return rng.choice([
            b"",
            bytes.fromhex("600a60005560016000f3"),
            bytes.fromhex("6001600055" + "60006000fd"),
            bytes.fromhex("60ef60005360016000f3"),  # EIP-3541
            bytes.fromhex("33ff"),
            bytes.fromhex("60015f5560025f5560206000f3"),
        ])

    def make(self):
        for _ in range(self.rng.randrange(4, 30)):
            self.value() if self.rng.randrange(3) else self.effect()
            if self.depth > 200:
                break
        end = self.rng.randrange(8)
        if end < 4:
            self.emit(push(self.rng.randrange(64)), push(self.rng.randrange(64)), 0xF3)
        elif end == 4:
            self.emit(push(self.rng.randrange(64)), push(0), 0xFD)
        elif end == 5:
            self.emit(push(self.target()), 0xFF)
        elif end == 6:
            self.emit(0xFE)
        return self.code


def authorization(rng, fork):
    key = "0x" + f"{rng.randrange(1, 1 << 200):064x}"
    target = rng.choice(CONTRACTS + [0])
    chain = rng.choice([0, 1, 1, 2])
    nonce = rng.choice([0, 0, 0, 1])
    message = b"\x05" + rlp.encode([chain.to_bytes(8, "big").lstrip(b"\0"), target.to_bytes(20, "big"), nonce.to_bytes(8, "big").lstrip(b"\0")])
    signature = PrivateKey(bytes.fromhex(key[2:])).sign_recoverable(keccak256(message), hasher=None)
    return {
        "chainId": hex(chain),
        "address": f"0x{target:040x}",
        "nonce": hex(nonce),
        "v": hex(signature[64]),
        "yParity": hex(signature[64]),
        "r": hex(int.from_bytes(signature[:32], "big")),
        "s": hex(int.from_bytes(signature[32:64], "big")),
        "signer": address_of(key),
    }


def make_test(rng):
    pre = {SENDER: {"balance": hex(10**18), "code": "0x", "nonce": hex(rng.randrange(3)), "storage": {}}}
    for contract in CONTRACTS:
        storage = {hex(slot): hex(rng.randrange(1, 1 << rng.choice([8, 255]))) for slot in rng.sample(range(8), rng.randrange(5))}
        pre[f"0x{contract:040x}"] = {
            "balance": hex(rng.choice([0, 7, 10**9])),
            "code": "0x" + Program(rng, contract).make().hex(),
            "nonce": hex(rng.choice([0, 1])),
            "storage": storage,
        }
    if rng.randrange(2):
        pre[COINBASE] = {"balance": "0x1", "code": "0x", "nonce": "0x0", "storage": {}}
    env = {
        "currentCoinbase": COINBASE,
        "currentDifficulty": "0x0",
        "currentRandom": f"0x{rng.randrange(1 << 256):064x}",
        "currentGasLimit": "0x3938700",
        "currentNumber": hex(rng.randrange(1, 1000)),
        "currentTimestamp": "0x3e8",
        "currentBaseFee": "0xa",
        "currentExcessBlobGas": "0x0",
        "parentBeaconBlockRoot": "0x" + "00" * 32,
        "withdrawals": [],
        "blockHashes": {},
    }
    kind = rng.choice([0, 1, 2, 2, 4])
    creation = kind != 4 and rng.randrange(8) == 0
    data = Program(rng, 0).make() if creation else rng.randbytes(rng.randrange(100))
    tx = {
        "data": ["0x" + data.hex()],
        "gasLimit": [hex(rng.choice([21000, 60000, 200000] + [1000000] * 9))],
        "value": [hex(rng.choice([0, 1, 10**17] * 6 + [10**19]))],
        "nonce": pre[SENDER]["nonce"] if rng.randrange(20) else "0x9",
        "to": "" if creation else f"0x{rng.choice(CONTRACTS + [EMPTY, 2]):040x}",
        "secretKey": KEY,
        "sender": SENDER,
    }
    if kind in (0, 1):
        tx["gasPrice"] = hex(rng.choice([10, 12, 11] * 4 + [9]))
    else:
        tx["maxFeePerGas"] = hex(rng.choice([10, 20, 100]))
        tx["maxPriorityFeePerGas"] = hex(rng.choice([0, 1, 9]))
    if kind in (1, 2, 4):
        slots = [f"0x{slot:064x}" for slot in rng.sample(range(8), rng.randrange(4))]
        tx["accessLists"] = [[{"address": f"0x{rng.choice(CONTRACTS):040x}", "storageKeys": slots}]]
    if kind == 4:
        tx["authorizationList"] = [authorization(rng, None) for _ in range(rng.randrange(1, 4))]
    return {"env": env, "pre": pre, "transaction": tx}, kind


def run(test, kind, fork):
    tx = test["transaction"]
    one = {
        "type": hex(kind),
        "chainId": "0x1",
        "input": tx["data"][0],
        "gas": tx["gasLimit"][0],
        "value": tx["value"][0],
        "nonce": tx["nonce"],
        "to": tx["to"] or None,
        "secretKey": KEY,
        "protected": True,
        "v": "0x0", "r": "0x0", "s": "0x0",
    }
    for name in ("gasPrice", "maxFeePerGas", "maxPriorityFeePerGas", "authorizationList"):
        if name in tx:
            one[name] = tx[name]
    if "accessLists" in tx:
        one["accessList"] = tx["accessLists"][0]
    stdin = {"alloc": test["pre"], "env": test["env"], "txs": [one]}
    arguments = [
        "t8n", "--input.alloc", "stdin", "--input.env", "stdin", "--input.txs", "stdin", "--output.result", "stdout",
        "--output.alloc", "stdout", "--state.fork", fork, "--state.chainid", "1", "--state.reward", "-1", "--state-test",
    ]
    out = io.StringIO()
    code = evm_tools(arguments, out_file=out, in_file=io.StringIO(json.dumps(stdin)))
    if code:
        raise SystemExit(f"t8n failed: {code}")
    result = json.loads(out.getvalue())["result"]
    post = {"hash": result["stateRoot"], "logs": result["logsHash"], "indexes": {"data": 0, "gas": 0, "value": 0}}
    if result.get("rejected"):
        post["expectException"] = result["rejected"][0]["error"][:80]
    return post


def main():
    seed, count, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    tests, refused = {}, 0
    for index in range(count):
        rng = random.Random(seed * 1_000_003 + index)
        test, kind = make_test(rng)
        forks = FORKS[1:] if kind == 4 else FORKS
        test["post"] = {fork: [run(test, kind, fork)] for fork in forks}
        refused += "expectException" in test["post"]["Prague"][0]
        tests[f"random_{seed}_{index:03}"] = test
    with open(f"{folder}/random_{seed}.json", "w") as file:
        json.dump(tests, file, separators=(",", ":"), sort_keys=True)
        file.write("\n")
    print(f"{count} tests, {refused} with a transaction that must be refused", file=sys.stderr)


main()
