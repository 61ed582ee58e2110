"""
Records what another engine (regorus, which Kata's agent has) makes of the fixtures in tests/fixtures/rego:

    python3 -m venv V && V/bin/pip install regorus-of-your-choice && V/bin/python record.py ../../fixtures/rego/*.rego

For each rule of NAME.rego, asked with NAME.input.json, NAME.expected.json gets its value; a rule that has none, or
whose evaluation fails, is left out. HAND below holds the values of what the engine does not have, or what the Rego documentation has differently:
objects before sets in the order of types, whole numbers of any size.
"""
import json
import re
import sys

import regorus

HAND = {
    "hashes": [
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
        "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8",
        "0cc175b9c0f1b6a831c399e269772661",
    ],
    "nested": [[11, 21], [12, 22]],
    "order_of_types": [True] * 6,
    "large_product": 18446744073709551616,
}


def record(path):
    source = open(path).read()
    engine = regorus.Engine()
    if "before-1.0" in path:
        engine.set_rego_v0(True)
    engine.add_policy(path, source)
    engine.set_input_json(open(path.replace(".rego", ".input.json")).read())
    names = re.findall(r"(?m)^(?:default )?([A-Za-z]\w*)(?=[ \[])", source)
    expected, failures = {}, {}
    for name in sorted(set(names) - {"package", "import", "default"}):
        if name in HAND:
            expected[name] = HAND[name]
            continue
        try:
            text = engine.eval_rule_as_json("data.test." + name)
        except Exception as error:
            failures[name] = next((line for line in str(error).split("\n") if line.startswith("error:")), str(error)[:80])
            continue
        if text != '"<undefined>"':
            expected[name] = json.loads(text)
    with open(path.replace(".rego", ".expected.json"), "w") as output:
        json.dump(expected, output, indent=1, sort_keys=True, ensure_ascii=False)
        output.write("\n")
    print(path, len(expected), "values;", failures)


for path in sys.argv[1:]:
    record(path)
