/** `completion`: the script that makes bash ask us what may follow. */
import { defineCommand } from '../command.js';

/**
 * The shell's side. bash cuts words at `@`, so the words are taken from the line itself, and what
 * stands before the last `@` is taken off the answers again. In the line a home is still `~`.
 */
const BASH_SCRIPT = `# bash completion for layerdisk
# Install: layerdisk completion > /etc/bash_completion.d/layerdisk
#      or: source <(layerdisk completion)
_layerdisk_completions() {
  local line="\${COMP_LINE:0:COMP_POINT}" words current answers
  read -ra words <<<"$line"
  [[ "$line" == *[[:space:]] ]] && words+=("")
  words=("\${words[@]/#\\~\\//$HOME/}")
  current="\${words[\${#words[@]}-1]}"
  mapfile -t answers < <("\${words[0]}" --get-yargs-completions "\${words[@]}" 2>/dev/null)
  mapfile -t COMPREPLY < <(compgen -W "\${answers[*]}" -- "$current")
  if [[ "$current" == *@* && "$COMP_WORDBREAKS" == *@* ]]; then
    COMPREPLY=("\${COMPREPLY[@]#"\${current%@*}@"}")
  fi
}
complete -o bashdefault -o default -F _layerdisk_completions layerdisk
`;

export const completionCommand = defineCommand({
  command: 'completion',
  describe: 'Print the completion script for bash',
  notes: 'In zsh: autoload -U bashcompinit && bashcompinit first.',
  example: 'source <(layerdisk completion)',
  options: (yargs) => yargs,
  run: async (session) => {
    const script = BASH_SCRIPT.trimEnd();
    const lines = script.split('\n');
    session.show({ bash: script }, { names: () => lines, human: () => lines });
  },
});
