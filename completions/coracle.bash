# bash completion for coracle: asks `coracle complete`
_coracle() {
    local line=${COMP_LINE:0:COMP_POINT} words current before candidate
    read -ra words <<<"$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    current=${words[-1]}
    before=${current%"${current##*[:=]}"}
    COMPREPLY=()
    while IFS=$'\t' read -r candidate _; do
        case $candidate in
        :files) compopt -o filenames && mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -f -- "${current#"$before"}") ;;
        :directories) compopt -o filenames && mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -d -- "${current#"$before"}") ;;
        *=) compopt -o nospace && COMPREPLY+=("${candidate#"$before"}") ;;
        *) COMPREPLY+=("${candidate#"$before"}") ;;
        esac
    done < <(coracle complete -- "${words[@]:1}" 2>/dev/null)
}
complete -F _coracle coracle
