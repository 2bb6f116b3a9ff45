# Lay out a JSON object as files in the folder "into": a member's file holds its value or, one behind the other, the
# values in its list or object. What lies deeper is left out, as CirrOS does. The status is 1 if it is not JSON.
function value(text, name) {
	if (depth == 1 || depth == 2) {
		name = key[1]
		gsub("/", "_", name)
		printf "%s", text >> (into "/" name)
	}
	wanted = ","
}

function unescaped(text, done, code) {
	while (match(text, /\\./)) {
		code = substr(text, RSTART + 1, 1)
		done = done substr(text, 1, RSTART - 1) (code == "n" ? "\n" : code == "t" ? "\t" : code)
		text = substr(text, RSTART + 2)
	}
	return done text
}

{ rest = rest $0 "\n" }

END {
	wanted = "object"
	for (;;) {
		sub(/^[ \t\r\n]+/, "", rest)
		if (rest == "") exit depth > 0 || wanted != ","
		taken = 1
		first = substr(rest, 1, 1)
		if (first == "{" && (wanted == "object" || wanted == "value")) {
			opened[++depth] = "{"
			wanted = "key"
		} else if (first == "[" && wanted == "value") {
			opened[++depth] = "["
			wanted = "value"
		} else if (wanted != ":" && depth && index("{} []", opened[depth] first)) {
			depth--
			wanted = ","
		} else if (first == ":" && wanted == ":") {
			wanted = "value"
		} else if (first == "," && wanted == "," && depth) {
			wanted = opened[depth] == "{" ? "key" : "value"
		} else if (wanted ~ /^(key|value)$/ && match(rest, /^"([^"\\]|\\.)*"/)) {
			taken = RLENGTH
			text = unescaped(substr(rest, 2, RLENGTH - 2))
			if (wanted == "value") {
				value(text)
			} else {
				key[depth] = text
				wanted = ":"
			}
		} else if (wanted == "value" && match(rest, /^(true|false|null|-?[0-9][0-9.eE+-]*)/)) {
			taken = RLENGTH
			value(substr(rest, 1, RLENGTH))
		} else {
			exit 1
		}
		rest = substr(rest, taken + 1)
	}
}
