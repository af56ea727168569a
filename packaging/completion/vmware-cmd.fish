# Completion of vmware-cmd for fish: machines and operations come from the server.
# Installed as /usr/share/fish/vendor_completions.d/vmware-cmd.fish.

# The words so far that are no options and no values of options.
function __vmware_cmd_words
    set -l skip 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
            continue
        end
        switch $word
            case -H -O -U -P --password-file --timeout --root
                set skip 1
            case '-*'
            case '*'
                echo $word
        end
    end
end

# Asks the server that the words so far name; never waits long, and never asks for a password.
function __vmware_cmd_ask
    set -l connect
    set -l take 0
    for word in (commandline -opc)[2..-1]
        if test $take = 1
            set -a connect $word
            set take 0
        else if contains -- $word -H -O -U -P --password-file --root
            set -a connect $word
            set take 1
        end
    end
    vmware-cmd --timeout 2 $connect $argv </dev/null 2>/dev/null
end

function __vmware_cmd_server
    contains -- -s (commandline -opc)
end

# Whether so many words stand before the cursor, the first of which is none of the others.
function __vmware_cmd_at
    set -l words (__vmware_cmd_words)
    test (count $words) = $argv[1]; and not __vmware_cmd_server
end

function __vmware_cmd_word
    set -l words (__vmware_cmd_words)
    test (count $words) -ge $argv[1]; and contains -- $words[$argv[1]] $argv[2..-1]
end

set -l new exec ops watch task doctor
set -l machine getstate start stop reset suspend answer getconfig setconfig getguestinfo setguestinfo \
    getconfigfile getproductinfo getpid getid getuptime getheartbeat gettoolslastactive getcapabilities \
    getrunasuser setrunasuser getconnectedusers getremoteconnections connectdevice disconnectdevice \
    getresource setresource hassnapshot createsnapshot revertsnapshot removesnapshots addredo commit
set -l server register unregister getresource setresource

complete -c vmware-cmd -f
complete -c vmware-cmd -o H -x -a '(__fish_print_hostnames)' -d 'host'
complete -c vmware-cmd -o O -x -d 'port'
complete -c vmware-cmd -o U -x -a '(__fish_complete_users)' -d 'user'
complete -c vmware-cmd -o P -x -d 'password'
complete -c vmware-cmd -o q -d 'quiet'
complete -c vmware-cmd -o v -d 'verbose'
complete -c vmware-cmd -o h -l help -d 'help'
complete -c vmware-cmd -o s -d 'an action on the server'
complete -c vmware-cmd -o l -d 'list of machines'
complete -c vmware-cmd -l long -d 'with state, name and more'
complete -c vmware-cmd -l json -d 'for programs'
complete -c vmware-cmd -l password-file -r -F -d 'password in a file'
complete -c vmware-cmd -l timeout -x -d 'seconds'
complete -c vmware-cmd -l root -x -a '(__fish_complete_directories)' -d 'instance'
complete -c vmware-cmd -l version -d 'version'

complete -c vmware-cmd -n '__vmware_cmd_at 0' -a "$new"
complete -c vmware-cmd -n '__vmware_cmd_at 0' -a '(__vmware_cmd_ask -l)' -d 'machine'
complete -c vmware-cmd -n "__vmware_cmd_at 1; and not __vmware_cmd_word 1 $new" -a "$machine"
complete -c vmware-cmd -n '__vmware_cmd_at 2; and __vmware_cmd_word 2 start stop reset suspend' -a 'hard soft trysoft'
complete -c vmware-cmd -n '__vmware_cmd_at 2; and __vmware_cmd_word 2 getproductinfo' \
    -a 'product platform build majorversion minorversion revision'
complete -c vmware-cmd -n '__vmware_cmd_at 1; and __vmware_cmd_word 1 exec' -F -a '(__vmware_cmd_ask ops --names)'
complete -c vmware-cmd -n '__vmware_cmd_at 1; and __vmware_cmd_word 1 ops' -a '(__vmware_cmd_ask ops --names)'
complete -c vmware-cmd -n '__vmware_cmd_word 1 ops' -l names -d 'names only'
complete -c vmware-cmd -n '__vmware_cmd_word 1 watch' -a '(__vmware_cmd_ask -l)' -d 'machine'
complete -c vmware-cmd -n '__vmware_cmd_at 1; and __vmware_cmd_word 1 task' \
    -a "(__vmware_cmd_ask task | awk 'NR > 1 { print \$1 }')" -d 'task'
for option in all stop delete no-wait no-progress
    complete -c vmware-cmd -n '__vmware_cmd_word 1 task' -l $option
end

complete -c vmware-cmd -n '__vmware_cmd_server; and test (count (__vmware_cmd_words)) = 0' -a "$server"
complete -c vmware-cmd -n '__vmware_cmd_server; and __vmware_cmd_word 1 register' -F
complete -c vmware-cmd -n '__vmware_cmd_server; and __vmware_cmd_word 1 unregister' -a '(__vmware_cmd_ask -l)'
complete -c vmware-cmd -n '__vmware_cmd_server; and __vmware_cmd_word 1 getresource' \
    -a 'system.cpu.number system.mem.size system.mem.avail system.mem.active'
