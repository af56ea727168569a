# Completion of vmware-cmd for bash: machines and operations come from the server.
# Installed as /usr/share/bash-completion/completions/vmware-cmd.

# Asks the server that the words so far name; never waits long, and never asks for a password.
_vmware_cmd_ask() {
    vmware-cmd --timeout 2 "${connect[@]}" "$@" </dev/null 2>/dev/null
}

# Offers those lines of the input that begin with the current word. Names come from others and may hold anything:
# `compgen -W` would run what looks like a command in them, and an unquoted list would match files.
_vmware_cmd_offer() {
    local line
    while IFS= read -r line; do
        [[ -n $line && $line == "$plain"* ]] && COMPREPLY+=("$line")
    done
}

# Offers what bash's own completion finds for the current word: `-f` files, `-u` users, and so on.
_vmware_cmd_found() {
    local -a found=()
    mapfile -t found < <(compgen "$@" -- "$current")
    COMPREPLY+=("${found[@]}")
}

_vmware_cmd() {
    local -a machine=(getstate start stop reset suspend answer getconfig setconfig getguestinfo setguestinfo
        getconfigfile getproductinfo getpid getid getuptime getheartbeat gettoolslastactive getcapabilities
        getrunasuser setrunasuser getconnectedusers getremoteconnections connectdevice disconnectdevice
        getresource setresource hassnapshot createsnapshot revertsnapshot removesnapshots addredo commit)
    local -a server=(register unregister getresource setresource)
    local -a new=(exec ops watch task doctor)
    local -a options=(-H -O -U -P -q -v -h -s -l --long --json --password-file --timeout --root --help --version)
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    # The current word without what quotes it.
    local plain=${current#[\"\']}
    [[ $current == \'* ]] || plain=${plain//\\/}
    local -a connect=() words=()
    local index word on_server=
    COMPREPLY=()

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

    case $previous in
        -H) _vmware_cmd_found -A hostname ;;
        -U) _vmware_cmd_found -u ;;
        -O|-P|--timeout) ;;
        --password-file) _vmware_cmd_found -f ;;
        --root) _vmware_cmd_found -d ;;
        *) _vmware_cmd_words ;;
    esac

    # What is inserted must be the name and nothing else, within the quotes that were typed or without any.
    local found
    for found in "${!COMPREPLY[@]}"; do
        word=${COMPREPLY[found]}
        case $current in
            \"*) COMPREPLY[found]=$(sed 's/[\\"$`]/\\&/g' <<<"$word") ;;
            \'*) COMPREPLY[found]=${word//\'/\'\\\'\'} ;;
            *) printf -v 'COMPREPLY[found]' '%q' "$word" ;;
        esac
    done
}

_vmware_cmd_words() {
    if [[ $current == -* ]]; then
        case ${words[0]} in
            ops) options+=(--names) ;;
            task) options+=(--all --stop --delete --no-wait --no-progress) ;;
        esac
        _vmware_cmd_offer < <(printf '%s\n' "${options[@]}")
    elif [[ $on_server ]]; then
        case ${words[0]} in
            "") _vmware_cmd_offer < <(printf '%s\n' "${server[@]}") ;;
            register) _vmware_cmd_found -f -X '!*.vmx'; _vmware_cmd_found -d ;;
            unregister) _vmware_cmd_offer < <(_vmware_cmd_ask -l) ;;
            getresource)
                _vmware_cmd_offer < <(printf 'system.%s\n' cpu.number mem.size mem.avail mem.active) ;;
        esac
    elif [[ ${#words[@]} -eq 0 ]]; then
        _vmware_cmd_offer < <(printf '%s\n' "${new[@]}")
        _vmware_cmd_offer < <(_vmware_cmd_ask -l)
    else
        case ${words[0]} in
            exec) _vmware_cmd_offer < <(_vmware_cmd_ask ops --names); _vmware_cmd_found -f ;;
            ops) _vmware_cmd_offer < <(_vmware_cmd_ask ops --names) ;;
            watch) _vmware_cmd_offer < <(_vmware_cmd_ask -l) ;;
            task) _vmware_cmd_offer < <(_vmware_cmd_ask task | awk 'NR > 1 { print $1 }') ;;
            doctor) ;;
            *)
                case ${words[1]} in
                    "") _vmware_cmd_offer < <(printf '%s\n' "${machine[@]}") ;;
                    start|stop|reset|suspend) _vmware_cmd_offer < <(printf '%s\n' hard soft trysoft) ;;
                    getproductinfo)
                        _vmware_cmd_offer < <(printf '%s\n' product platform build majorversion minorversion revision) ;;
                esac ;;
        esac
    fi
}
complete -o nosort -F _vmware_cmd vmware-cmd
