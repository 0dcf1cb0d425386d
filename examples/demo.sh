#!/usr/bin/env bash
# A batch of some hundreds of real texts through the embedded Temporal, against the sandbox: no account, no cost.
# `make demo` calls it with .venv/bin on the PATH. It works in .durabatch/demo of the repository, or in DEMO_FOLDER.
set -euo pipefail
repository=$(cd "$(dirname "$0")/.." && pwd)
folder=${DEMO_FOLDER:-$repository/.durabatch/demo}

# The demo runs a Temporal of its own, whatever this shell is configured for.
for name in $(compgen -e | grep -E '^(TEMPORAL|DURABATCH)_' || true); do unset "$name"; done
export TEMPORAL_CONFIG_FILE=/dev/null

mkdir -p "$folder"
cd "$folder"
again=
if [ -e results.jsonl ]; then again=yes; fi

python "$repository/examples/docstrings.py" requests.jsonl
echo
durabatch run requests.jsonl --provider sandbox --model gpt-4o-mini --output "$folder/results.jsonl" | tee summary.txt
id=$(sed -n 's/^Batch *//p' summary.txt)
echo
python "$repository/examples/check_results.py" requests.jsonl results.jsonl
echo "The cost is what OpenAI's price list makes of it; the sandbox charges nothing."
if [ -n "$again" ]; then
  echo "This was not the first run: the same requests are the same batch, so nothing was submitted and nothing paid again."
fi
cat <<TEXT

Next, in a terminal:
  cd $folder
  export PATH=$(dirname "$(command -v durabatch)"):\$PATH
  durabatch results $id --format text | head
  durabatch dev --sandbox        # runs on until Ctrl-C: the batch's history is in the Web UI that it names
In a second terminal, after the same two lines, while the first one runs on:
  python $repository/examples/six_lines.py
With a key, at OpenAI itself:
  OPENAI_API_KEY=… durabatch run requests.jsonl --provider openai --model gpt-4o-mini --max-cost-usd 0.10
TEXT
