# Flattens a JSON document: one "path=value" line for each value, the path's names
# joined by dots. A value of several lines gives several lines with the same path.
# Malformed input ends it with status 1 rather than being guessed at.
{ text = text $0 "\n" }
END { read_value("") }

# Commas and colons carry nothing that the order does not.
function skip() { sub(/^[ \t\r\n,:]+/, "", text) }

function take(pattern,   token) {
	if (!match(text, pattern)) exit 1
	token = substr(text, 1, RLENGTH)
	text = substr(text, RLENGTH + 1)
	return token
}

function read_string(   s) {
	s = take("^\"[^\"\\\\]*(\\\\.[^\"\\\\]*)*\"")
	return substr(s, 2, length(s) - 2)
}

function put(path, s) {
	gsub(/\\\\/, "\001", s)
	gsub(/\\n/, "\n" path "=", s)
	gsub(/\\[\/"]/, "&\002", s)
	gsub(/\\\/\002/, "/", s)
	gsub(/\\"\002/, "\"", s)
	gsub(/\001/, "\\", s)
	print path "=" s
}

function read_value(path,   open, key, n) {
	skip()
	open = substr(text, 1, 1)
	if (open == "\"") {
		put(path, read_string())
	} else if (open == "{" || open == "[") {
		text = substr(text, 2)
		skip()
		while (text !~ /^[]}]/) {
			if (text == "") exit 1
			key = open == "{" ? read_string() : n++
			read_value(path == "" ? key : path "." key)
			skip()
		}
		text = substr(text, 2)
	} else {
		put(path, take("^[-+.a-zA-Z0-9]+"))
	}
}
