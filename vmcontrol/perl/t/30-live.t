# Every way in, and every method on a machine that is off, against a live instance.
use strict;
use warnings;
use Config ();
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::File;
use Test::More;
use Live;

use VMware::VmPerl;
use VMware::VmPerl::ConnectParams;
use VMware::VmPerl::Server;
use VMware::VmPerl::VM;

Live::need(qw(VMPERL_ROOT VMPERL_TLS_PORT VMPERL_PLAIN_PORT VMPERL_USER VMPERL_PASSWORD VMPERL_OFF VMPERL_HIDDEN));
my ($user, $password, $config) = @ENV{qw(VMPERL_USER VMPERL_PASSWORD VMPERL_OFF)};

# Ways in.
my %ways = (
    'the unix socket' => [],
    'the unix socket with a password' => [ undef, undef, $user, $password ],
    'plain TCP, proven by the kernel' => [ '127.0.0.1', $ENV{VMPERL_PLAIN_PORT} ],
    'plain TCP with a password' => [ 'localhost', $ENV{VMPERL_PLAIN_PORT}, $user, $password ],
);
if (eval { require IO::Socket::SSL; 1 }) {
    $ways{'TLS, proven by the kernel'} = [ '127.0.0.1', $ENV{VMPERL_TLS_PORT} ];
    $ways{'TLS with a password'} = [ '127.0.0.1', $ENV{VMPERL_TLS_PORT}, $user, $password ];
    # The configuration of the instance names its TLS port.
    $ways{'TLS at the port of the configuration'} = [ '127.0.0.1', 0, $user, $password ];
}
for my $way (sort keys %ways) {
    my $server = VMware::VmPerl::Server::new();
    ok_and_clean($server, $server->connect(VMware::VmPerl::ConnectParams::new(@{ $ways{$way} })), 1, $way);
    is($server->is_connected, 1, "$way: connected");
    like($server->exec("<exec><op>inc</op><in><number>41</number></in></exec>"), qr{<number>42</number>}, "$way: inc");
    like($server->exec("<exec><op>div</op><in><dividend>1</dividend><divisor>0</divisor></in></exec>"),
        qr{<returncode>0</returncode>.*code="-999"}, "$way: a failing reply is a reply");
    is(($server->get_last_error)[0], 0, "$way: and no error");
    is($server->disconnect, 1, "$way: disconnect");
    is($server->is_connected, undef, "$way: not connected");
}
{
    # Another port than that of the configuration: the socket is not tried.
    my $server = VMware::VmPerl::Server::new();
    ok_and_clean($server, $server->connect(VMware::VmPerl::ConnectParams::new(undef, $ENV{VMPERL_PLAIN_PORT})), 1, 'no host, a port');
    # Nobody at the socket: loopback TCP is next.
    local $ENV{VMSERVERD_ROOT} = "$Live::directory";
    mkdir "$Live::directory/$_" for qw(etc etc/vmware);
    open my $file, '>', "$Live::directory/etc/vmware/config" or die;
    print $file qq(authd.client.port = "$ENV{VMPERL_PLAIN_PORT}"\n);
    close $file;
    my $next = VMware::VmPerl::Server::new();
    ok_and_clean($next, $next->connect(local_params()), 1, 'without a socket, TCP');
}
{
    my $server = VMware::VmPerl::Server::new();
    fails($server, $server->connect(VMware::VmPerl::ConnectParams::new(undef, 0, $user, 'wrong')), VM_E_NOACCESS,
        qr/^Permission denied: Login incorrect\.$/, 'a wrong password');
    ok_and_clean($server, $server->connect(local_params()), 1, 'the object can be used again');
}
SKIP: {
    skip 'IO::Socket::SSL is not installed', 9 if !$INC{'IO/Socket/SSL.pm'};
    my $file = $ENV{VMSERVERD_KNOWN_HOSTS};
    my @params = ('127.0.0.1', $ENV{VMPERL_TLS_PORT}, $user, $password);
    open my $kept, '<', $file or die "$file: $!";
    my @lines = <$kept>;
    is(scalar(grep { /^127\.0\.0\.1:$ENV{VMPERL_TLS_PORT} sha256:[0-9a-f]{64}$/ } @lines), 1, 'the certificate was kept, once');
    open my $changed, '>', $file or die "$file: $!";
    print $changed "127.0.0.1:$ENV{VMPERL_TLS_PORT} sha256:", '0' x 64, "\n";
    close $changed;
    my $server = VMware::VmPerl::Server::new();
    fails($server, $server->connect(VMware::VmPerl::ConnectParams::new(@params)), VM_E_NETFAIL, qr/certificate of 127\.0\.0\.1:[0-9]+ is not the one seen before.* remove line 1 of /, 'another certificate');
    # This machine's user sends no secret, whoever listens.
    print {$changed = IO::File->new($file, 'a')} "localhost:$ENV{VMPERL_TLS_PORT} sha256:", '0' x 64, "\n";
    $changed->close;
    my $local = VMware::VmPerl::Server::new();
    local $ENV{VMSERVERD_ROOT} = "$Live::directory";
    ok_and_clean($local, $local->connect(VMware::VmPerl::ConnectParams::new(undef, $ENV{VMPERL_TLS_PORT})), 1, 'a local login over TLS');
    is(scalar(() = $local->registered_vm_names), 0, 'which works');
    unlink $file;
    ok_and_clean($server, $server->connect(VMware::VmPerl::ConnectParams::new(@params)), 1, 'the line removed');
}

# A copy in a child, or in a thread, neither works nor does harm. In a program of its own: what goes
# wrong there ends with a signal.
for my $way ('plain TCP, proven by the kernel', 'TLS, proven by the kernel') {
    next if !$ways{$way};
    my ($host, $port) = @{ $ways{$way} };
    my $threads = $Config::Config{useithreads} ? 1 : 0;
    my $program = <<'END';
        my ($host, $port, $threads) = @ARGV;
        require threads if $threads;
        require VMware::VmPerl;
        our $server = VMware::VmPerl::Server::new();
        $server->connect(VMware::VmPerl::ConnectParams::new($host, $port)) or die join ': ', $server->get_last_error;
        sub copy { my $says = !$server->is_connected && !$server->exec('<exec/>') && $server->get_last_error; undef $server; return $says }
        my $pid = fork;
        exit(copy() == -5 ? 0 : 1) if !$pid;
        waitpid $pid, 0;
        die "child: $?" if $?;
        if ($threads) { my $says = threads->create(\&copy)->join; die "thread: $says" if $says != -5 }
        print $server->exec('<exec><op>inc</op><in><number>1</number></in></exec>');
END
    open my $output, '-|', $^X, (map { "-I$_" } @INC), '-we', $program, $host, $port, $threads or die "fork: $!";
    my $text = join '', <$output>;
    close $output;
    is($?, 0, "$way: copies do no harm");
    like($text, qr{<number>2</number>}, "$way: the connection goes on");
}

# The server object.
my $params = local_params();
my $server = VMware::VmPerl::Server::new();
ok_and_clean($server, $server->connect($params), 1, 'connect');
my @names = $server->registered_vm_names;
ok_and_clean($server, scalar(@names), 0, 'no machine: the empty list');
ok_and_clean($server, $server->is_registered($config), 0, 'not registered');
fails($server, $server->unregister_vm($config), VM_E_NOSUCHVM, qr/^No such virtual machine$/, 'unregistering it');
fails($server, $server->register_vm("$config.none"), VM_E_NOSUCHVM, qr/^No such virtual machine$/, 'registering what is not there');
ok_and_clean($server, $server->register_vm($config), 1, 'registering it');
fails($server, $server->register_vm($config), VM_E_VMEXISTS, qr/^Virtual machine already exists/, 'a second time');
ok_and_clean($server, $server->is_registered($config), 1, 'registered');
@names = $server->registered_vm_names;
is_deeply(\@names, [$config], 'it is listed, the hidden one is not');
is(scalar($server->registered_vm_names), 1, 'in scalar context they are counted');
like($server->get_resource('system.cpu.number'), qr/^[1-9][0-9]*$/, 'processors');
like($server->get_resource('system.mem.size'), qr/^[0-9]{4,}$/, 'memory');
fails($server, $server->get_resource('system.none'), VM_E_NOPROPERTY, qr/^No such property/, 'another figure');
fails($server, $server->set_resource('system.mem.size', 1), VM_E_NOTSUPPORTED, qr/^Not supported/, 'setting one');

# Connecting to machines.
my $vm = VMware::VmPerl::VM::new();
for my $other ("$config.none", $ENV{VMPERL_HIDDEN}) {
    fails($vm, $vm->connect($params, $other), VM_E_NOSUCHVM,
        qr/^No such virtual machine: The config file \Q$other\E is not registered\.\nPlease register the config file on the server\.  For example:\nvmware-cmd -s register "\Q$other\E"$/,
        "connecting to $other");
    is($vm->is_connected, undef, 'the object is not connected');
}
ok_and_clean($vm, $vm->connect($params, $config), 1, 'connecting to the machine');
undef $params;
is($vm->is_connected, 1, 'is connected');
fails($vm, $vm->connect(local_params(), $config), VM_E_ALREADYCONNECTED, qr/^Already connected/, 'connecting twice');
ok_and_clean($vm, $vm->get_config_file_name, $config, 'its path');

# The server sees the object, and sees it go.
sub holders {
    my $reply = $server->exec("<exec><op>VM_Who</op><in><config>$config</config></in></exec>");
    return scalar(() = $reply =~ m{<type>api</type>}g);
}
my $before = holders();
cmp_ok($before, '>', 0, 'VM_Who lists the connection');
{
    my $second = VMware::VmPerl::VM->new;
    ok($second->connect(local_params(), $config, 1), 'a second one, for the console');
    is(holders(), $before + 1, 'is listed too');
}
eventually('letting go of the object disconnects', sub { holders() == $before });

# A machine that is off.
ok_and_clean($vm, $vm->get_execution_state, VM_EXECUTION_STATE_OFF, 'off');
is($vm->get_config('displayName'), 'Perl test', 'a key');
is($vm->get_config('DISPLAYNAME'), 'Perl test', 'without regard to case');
fails($vm, $vm->get_config('no.such.key'), VM_E_NOPROPERTY, qr/^No such property: no\.such\.key/, 'no such key');
ok_and_clean($vm, $vm->set_config('annotation', "<caf\x{e9}> & \x{20ac}|\"\x{1f600}"), 1, 'setting one');
is($vm->get_config('annotation'), "<caf\xc3\xa9> & \xe2\x82\xac|\"\xf0\x9f\x98\x80", 'and reading it, as octets');
# Not kept as UTF-8 by Perl, and characters all the same.
ok_and_clean($vm, $vm->set_config('annotation', "M\x{e4}rz"), 1, 'setting one with characters below 256');
is($vm->get_config('annotation'), "M\xc3\xa4rz", 'and reading it');
is_deeply({ name => $vm->get_config('no.such.key'), next => 1 }, { name => undef, next => 1 }, 'a failure in a list is one undef');
my @product = (4, 2, 44356, 1, 0, 3);
ok_and_clean($vm, $vm->get_product_info($_), $product[ $_ - 1 ], "product information $_") for 1 .. 6;
for my $type (0, 7, 'product', undef) {
    fails($vm, $vm->get_product_info($type), VM_E_INVALIDARGS, qr/^Invalid argument/, 'product information of type ' . (defined $type ? $type : 'undef'));
}
ok_and_clean($vm, $vm->get_capabilities, 7, 'rights');
ok_and_clean($vm, $vm->get_runas_user, $user, 'its user');
ok_and_clean($vm, $vm->get_remote_connections, 0, 'no console');
ok_and_clean($vm, $vm->$_, 0, "$_ of a machine that is off") for qw(get_uptime get_heartbeat get_tools_last_active get_pid get_id);
fails($vm, $vm->get_guest_info('ip'), VM_E_NOPROPERTY, qr/^No such property: ip/, 'a guest variable');
fails($vm, $vm->set_guest_info('a.b', 1), VM_E_BADSTATE, qr/\("off"\)/, 'setting one');
fails($vm, $vm->get_resource('cpu.number'), VM_E_NOTSUPPORTED, qr/^Not supported/, 'a resource');
fails($vm, $vm->set_resource('cpu.shares', 1), VM_E_NOTSUPPORTED, qr/^Not supported/, 'setting one');
for my $method (qw(stop reset suspend)) {
    fails($vm, $vm->$method(VM_POWEROP_MODE_HARD), VM_E_BADSTATE,
        qr/^Invalid operation for virtual machine's current state: The requested operation \("$method"\).*\("off"\)/, $method);
}
fails($vm, $vm->start(4), VM_E_INVALIDARGS, qr/^Invalid argument: power mode/, 'power mode 4');
fails($vm, $vm->start('hard'), VM_E_INVALIDARGS, qr/^Invalid argument: power mode/, 'a power mode in words');
fails($vm, $vm->connect_device('floppy0'), VM_E_BADSTATE, qr/\("off"\)/, 'a device');
ok_and_clean($vm, $vm->device_is_connected('floppy0'), 0, 'nothing is plugged in');
fails($vm, $vm->device_is_connected('floppy9'), VM_E_NOPROPERTY, qr/^No such property/, 'another device');
ok_and_clean($vm, $vm->has_snapshot, 0, 'no snapshot');
fails($vm, $vm->revert_to_snapshot, VM_E_UNSPECIFIED, qr/^No snapshot$/, 'going back to it');
ok_and_clean($vm, $vm->get_pending_question, undef, 'no question');
fails($vm, $vm->answer_question(1, 0), VM_E_BADSTATE, qr/^Invalid operation/, 'answering it');
fails($vm, $vm->answer_question('1<', 0), VM_E_INVALIDARGS, qr/^Invalid argument/, 'answering something else');
fails($vm, $vm->set_runas_user('root', 'x'), VM_E_NOTSUPPORTED, qr/VM_SetRunAsUser/, 'another user');
fails($vm, $vm->add_redo('ide0:0'), VM_E_NOTSUPPORTED, qr/VM_AddRedo/, 'a redo log');
fails($vm, $vm->commit('ide0:0', 0, 0, 1), VM_E_NOTSUPPORTED, qr/VM_CommitRedo/, 'committing it');

# The older names.
{
    require VMware::Control;
    my $old = VMware::Control::Server::new(undef, undef, undef, undef);
    ok_and_clean($old, $old->connect(), 1, 'VMware::Control::Server');
    is_deeply([ $old->registered_vm_names ], [$config], 'lists machines');
    my $machine = VMware::Control::VM::new($old, $config);
    ok_and_clean($machine, $machine->connect(), 1, 'VMware::Control::VM');
    is($machine->get_execution_state, VM_EXECUTION_STATE_OFF, 'asks it');
}

# A machine that goes while it is held.
ok_and_clean($server, $server->unregister_vm($config), 1, 'unregistering it');
fails($vm, $vm->get_execution_state, VM_E_NOSUCHVM, qr/^No such virtual machine: The config file/, 'its state');
is($vm->is_connected, 1, 'the object is still connected');

done_testing;
