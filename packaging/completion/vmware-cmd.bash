# Completion of vmware-cmd for bash: machines and operations come from the server.
# Installed as /usr/share/bash-completion/completions/vmware-cmd.

# Asks the server that the words so far name; never waits long, and never asks for a password.
_vmware_cmd_ask() {
    vmware-cmd --timeout 2 "${connect[@]}" "$@" </dev/null 2>/dev/null
}

_vmware_cmd() {
    local machine="getstate start stop reset suspend answer getconfig setconfig getguestinfo setguestinfo
        getconfigfile getproductinfo getpid getid getuptime getheartbeat gettoolslastactive getcapabilities
        getrunasuser setrunasuser getconnectedusers getremoteconnections connectdevice disconnectdevice
        getresource setresource hassnapshot createsnapshot revertsnapshot removesnapshots addredo commit"
    local server="register unregister getresource setresource"
    local new="exec ops watch task doctor"
    local options="-H -O -U -P -q -v -h -s -l --long --json --password-file --timeout --root --help --version"
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    local -a connect=() words=()
    local index word on_server=
    COMPREPLY=()

    case $previous in
        -H) COMPREPLY=($(compgen -A hostname -- "$current")); return ;;
        -U) COMPREPLY=($(compgen -u -- "$current")); return ;;
        -O|-P|--timeout) return ;;
        --password-file) COMPREPLY=($(compgen -f -- "$current")); return ;;
        --root) COMPREPLY=($(compgen -d -- "$current")); return ;;
    esac
    for ((index = 1; index < COMP_CWORD; index++)); do
        word=${COMP_WORDS[index]}
        case $word in
            -H|-O|-U|-P|--password-file|--root)
                connect+=("$word" "${COMP_WORDS[++index]}") ;;
            --timeout) ((index++)) ;;
            -s) on_server=1 ;;
            -*) ;;
            *) words+=("$word") ;;
        esac
    done

    local IFS=$' \t\n'
    if [[ $current == -* ]]; then
        case ${words[0]} in
            ops) options="--names $options" ;;
            task) options="--all --stop --delete --no-wait --no-progress $options" ;;
        esac
        COMPREPLY=($(compgen -W "$options" -- "$current"))
    elif [[ $on_server ]]; then
        case ${words[0]} in
            "") COMPREPLY=($(compgen -W "$server" -- "$current")) ;;
            register) IFS=$'\n'; COMPREPLY=($(compgen -f -X '!*.vmx' -- "$current") $(compgen -d -- "$current")) ;;
            unregister) IFS=$'\n'; COMPREPLY=($(compgen -W "$(_vmware_cmd_ask -l)" -- "$current")) ;;
            getresource) COMPREPLY=($(compgen -W "system.cpu.number system.mem.size system.mem.avail system.mem.active" -- "$current")) ;;
        esac
    elif [[ ${#words[@]} -eq 0 ]]; then
        COMPREPLY=($(compgen -W "$new" -- "$current"))
        IFS=$'\n'
        COMPREPLY+=($(compgen -W "$(_vmware_cmd_ask -l)" -- "$current"))
    else
        case ${words[0]} in
            exec)
                IFS=$'\n'
                COMPREPLY=($(compgen -W "$(_vmware_cmd_ask ops --names)" -- "$current") $(compgen -f -- "$current")) ;;
            ops) COMPREPLY=($(compgen -W "$(_vmware_cmd_ask ops --names)" -- "$current")) ;;
            watch) IFS=$'\n'; COMPREPLY=($(compgen -W "$(_vmware_cmd_ask -l)" -- "$current")) ;;
            task) COMPREPLY=($(compgen -W "$(_vmware_cmd_ask task | awk 'NR > 1 { print $1 }')" -- "$current")) ;;
            doctor) ;;
            *)
                case ${words[1]} in
                    "") COMPREPLY=($(compgen -W "$machine" -- "$current")) ;;
                    start|stop|reset|suspend) COMPREPLY=($(compgen -W "hard soft trysoft" -- "$current")) ;;
                    getproductinfo)
                        COMPREPLY=($(compgen -W "product platform build majorversion minorversion revision" -- "$current")) ;;
                esac ;;
        esac
    fi
    # A space in a path must not end the word.
    local found
    for found in "${!COMPREPLY[@]}"; do
        COMPREPLY[found]=$(printf '%q' "${COMPREPLY[found]}")
    done
}
complete -o nosort -F _vmware_cmd vmware-cmd
