# For the scripts beside it: patience WHAT COMMAND... repeats a command until it succeeds, for WAIT_SECONDS (60) at most. A
# pod's network, and a store that starts or fails over, take a moment. A command that ends with 3 says that waiting is no use.
patience() {
  what=$1 began=$(date +%s)
  shift
  while true; do
    code=0
    said=$("$@" 2>&1) || code=$?
    if [ "$code" = 0 ]; then return 0; fi
    if [ "$code" = 3 ] || [ $(($(date +%s) - began)) -ge "${WAIT_SECONDS:-60}" ]; then
      echo "$what does not answer: $said" >&2
      exit 1
    fi
    sleep 1
  done
}

redis_answers() {
  answer=$(redis-cli -h "$host" -p "$port" PING 2>&1 || true)
  case $answer in
    PONG*) return 0 ;;
    *NOAUTH* | *WRONGPASS* | *NOPERM*) echo "$answer"; return 3 ;;
    *) echo "$answer"; return 1 ;;
  esac
}

postgres_answers() {
  answer=$(PGCONNECT_TIMEOUT=5 psql --no-psqlrc --no-password --quiet --tuples-only --command='SELECT 1' "${DATABASE_URL:?}" 2>&1) &&
    return 0
  echo "$answer"
  case $answer in
    *'authentication failed'* | *'does not exist'* | *'no password supplied'*) return 3 ;;
    *) return 1 ;;
  esac
}
