# What a test run left behind, for scripts/test (sourced; not a program of its own).
#
# In: $run = the run's folder, with the tests' temporary folder in $run/t; $mark = NAME=VALUE in the
# environment of all its processes.

# Where the product itself keeps things when nobody says otherwise; tests must always say.
default_places='/run/layerdisk|/var/lib/layerdisk'

list_mounts() { awk '{ print $2 " (" $3 ")" }' /proc/self/mounts | sort; }
list_loops() { losetup --noheadings --raw --output NAME,BACK-FILE 2>/dev/null | sort; }

note_state() {
  mounts_before=$(list_mounts)
  loops_before=$(list_loops)
}

new_lines() { comm -13 <(printf '%s\n' "$1") <(printf '%s\n' "$2"); }

run_mounts() {
  new_lines "$mounts_before" "$(list_mounts)" | grep -E "^($run/|$default_places)" || true
}

# A loop device is this run's when its file lies in the run's folder, or nowhere any more (below a
# mount that is gone, or deleted).
run_loops() {
  new_lines "$loops_before" "$(list_loops)" | while read -r device file; do
    [ -n "$device" ] || continue
    case $file in
      "$run"/* | *' (deleted)') printf '%s %s\n' "$device" "$file" ;;
      *) [ -e "$file" ] || printf '%s %s\n' "$device" "$file" ;;
    esac
  done
}

run_processes() {
  # Without the mark in its own environment, or grep would find itself.
  env -i PATH="$PATH" grep -slF "$mark" /proc/[0-9]*/environ | cut -d/ -f3 || true
}

# Where the kernel has the threads of a process waiting: what it hangs on.
thread_places() {
  local task
  for task in /proc/"$1"/task/*; do
    printf '%s ' "$(cat "$task/wchan" 2>/dev/null)"
  done
}

# One line for each thing left. Waits for processes that are about to end.
leftovers() {
  local pid _
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -n "$(run_processes)" ] || break
    sleep 0.5
  done
  for pid in $(run_processes); do
    printf 'process %s: %s(threads at: %s)\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline")" \
      "$(thread_places "$pid")"
  done
  run_mounts | sed 's/^/mount /'
  run_loops | sed 's/^/loop device /'
  # Caches of compiled JavaScript, put there by npm's programs, are nobody's fault.
  find "$run/t" -mindepth 1 -maxdepth 1 ! -name '*-compile-cache*' -printf 'file %p\n'
}

remove_leftovers() {
  local pid mount device
  [ -n "${mounts_before-}" ] || return 0
  for pid in $(run_processes); do kill -KILL "$pid" 2>/dev/null || true; done
  # Deepest first; lazily, because whoever served it may be gone.
  run_mounts | sed 's/ ([^)]*)$//' | sort -r | while read -r mount; do
    # Blanks in a path are written as \040 there.
    umount -l "$(printf '%b' "${mount//\\0/\\00}")"
  done
  run_loops | while read -r device _; do losetup -d "$device"; done
}
