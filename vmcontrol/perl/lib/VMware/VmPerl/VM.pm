package VMware::VmPerl::VM;

use strict;
use warnings;

use Scalar::Util ();

use VMware::VmPerl::ConnectParams ();
use VMware::VmPerl::Constants ();
use VMware::VmPerl::Object ();
use VMware::VmPerl::Question ();
use VMware::VmPerl::Reply ();

our $VERSION = '1.0.0';
our @ISA = ('VMware::VmPerl::Object');

my $VALUE = \%VMware::VmPerl::Constants::VALUE;

# What VM_GetProductInfo calls each type of information.
my %PRODUCT_INFO = (
    $VALUE->{VM_PRODINFO_PRODUCT}          => 'product',
    $VALUE->{VM_PRODINFO_PLATFORM}         => 'platform',
    $VALUE->{VM_PRODINFO_BUILD}            => 'build',
    $VALUE->{VM_PRODINFO_VERSION_MAJOR}    => 'majorVersion',
    $VALUE->{VM_PRODINFO_VERSION_MINOR}    => 'minorVersion',
    $VALUE->{VM_PRODINFO_VERSION_REVISION} => 'revision',
);

sub new {
    my ($class) = VMware::VmPerl::Object::_arguments(__PACKAGE__, @_);
    return VMware::VmPerl::Object::_new($class);
}

# Registration and the right to see the machine are checked here, not at the first operation.
sub connect {
    my ($self, $params, $config, $mks) = @_;
    return $self->_run(sub {
        my $path = VMware::VmPerl::Reply::octets(config => $config);
        VMware::VmPerl::Reply::escape(config => $config);
        $self->_log_in($params);
        $self->{config} = $path;
        # Until the machine is known to be there the object counts as unconnected.
        my $known = eval { $self->_on('VM_INFO', connect => 1, mks => $mks ? 1 : 0); 1 };
        if (!$known) {
            my $failure = $@;
            $self->_drop;
            die $failure;
        }
        return 1;
    });
}

# An operation on this machine.
sub _on {
    my ($self, $op, @pairs) = @_;
    $self->_connected;
    return $self->_operation($op, config => $self->{config}, @pairs);
}

# A method without a value: 1, or undef.
sub _do {
    my ($self, $op, @pairs) = @_;
    return $self->_run(sub { $self->_on($op, @pairs); 1 });
}

sub _get_text {
    my ($self, $path, $op, @pairs) = @_;
    return $self->_run(sub { VMware::VmPerl::Reply::text($self->_on($op, @pairs), @$path) });
}

sub _get_number {
    my ($self, $path, $op, @pairs) = @_;
    return $self->_run(sub { VMware::VmPerl::Reply::number($self->_on($op, @pairs), @$path) });
}

# The same of a fact that only a machine with a process has: without one it is 0.
sub _get_live {
    my ($self, $name, $op) = @_;
    return $self->_run(sub {
        my $number = eval { VMware::VmPerl::Reply::number($self->_on($op), $name) };
        return $number if defined $number;
        my $failure = $@;
        return 0
            if Scalar::Util::blessed($failure)
            && $failure->isa('VMware::VmPerl::Failure')
            && $failure->[0] == $VALUE->{VM_E_BADSTATE};
        die $failure;
    });
}

sub get_execution_state { my ($self) = @_; return $self->_get_number(['state'], 'VM_GetState') }

sub _power {
    my ($self, $op, $mode) = @_;
    $mode = $VALUE->{VM_POWEROP_MODE_SOFT} if !defined $mode;
    return $self->_run(sub {
        VMware::VmPerl::Object::_fail(INVALIDARGS => "power mode: $mode is none") if $mode !~ /^[123]$/;
        $self->_on($op, mode => $mode);
        return 1;
    });
}

sub start   { my ($self, $mode) = @_; return $self->_power('VM_Start',   $mode) }
sub stop    { my ($self, $mode) = @_; return $self->_power('VM_Stop',    $mode) }
sub reset   { my ($self, $mode) = @_; return $self->_power('VM_Reset',   $mode) }
sub suspend { my ($self, $mode) = @_; return $self->_power('VM_Suspend', $mode) }

sub get_config { my ($self, $key) = @_; return $self->_get_text(['value'], 'VM_GetConfig', key => $key) }

sub set_config {
    my ($self, $key, $value) = @_;
    return $self->_do('VM_SetConfig', key => $key, value => $value);
}

sub get_guest_info { my ($self, $key) = @_; return $self->_get_text(['value'], 'VM_GetGuestInfo', key => $key) }

sub set_guest_info {
    my ($self, $key, $value) = @_;
    return $self->_do('VM_SetGuestInfo', key => $key, value => $value);
}

sub get_resource { my ($self, $name) = @_; return $self->_get_text(['value'], 'VM_GetResource', name => $name) }

sub set_resource {
    my ($self, $name, $value) = @_;
    return $self->_do('VM_SetResource', name => $name, value => $value);
}

# The path given at connect; nothing is sent.
sub get_config_file_name {
    my ($self) = @_;
    return $self->_run(sub {
        VMware::VmPerl::Object::_fail(NOTCONNECTED => 'call connect first') if !defined $self->{config};
        return $self->{config};
    });
}

sub get_product_info {
    my ($self, $type) = @_;
    return $self->_run(sub {
        my $name = defined $type ? $PRODUCT_INFO{$type} : undef;
        VMware::VmPerl::Object::_fail(INVALIDARGS => 'product information: no such type') if !defined $name;
        return VMware::VmPerl::Reply::number($self->_on('VM_GetProductInfo'), $name);
    });
}

sub get_capabilities { my ($self) = @_; return $self->_get_number(['capabilities'], 'VM_GetCapabilities') }

sub get_remote_connections {
    my ($self) = @_;
    return $self->_get_number(['remoteConnections'], 'VM_GetRemoteConnections');
}

sub get_runas_user { my ($self) = @_; return $self->_get_text(['user'], 'VM_GetRunAsUser') }

sub get_heartbeat         { my ($self) = @_; return $self->_get_live('heartbeat',       'VM_GetHeartbeat') }
sub get_uptime            { my ($self) = @_; return $self->_get_live('uptime',          'VM_GetUptime') }
sub get_tools_last_active { my ($self) = @_; return $self->_get_live('toolsLastActive', 'VM_GetToolsLastActive') }

sub get_pid { my ($self) = @_; return $self->_get_number([ 'vm', 'pid' ], 'VM_INFO') }
sub get_id  { my ($self) = @_; return $self->_get_number([ 'vm', 'id' ],  'VM_INFO') }

sub connect_device    { my ($self, $device) = @_; return $self->_do('VM_DeviceConnect',    device => $device) }
sub disconnect_device { my ($self, $device) = @_; return $self->_do('VM_DeviceDisconnect', device => $device) }

sub device_is_connected {
    my ($self, $device) = @_;
    return $self->_get_number(['connected'], 'VM_DeviceIsConnected', device => $device);
}

sub has_snapshot { my ($self) = @_; return $self->_get_number(['hasSnapshot'], 'VM_HasSnapshot') }

sub create_snapshot {
    my ($self, $name, $description, $quiesce, $memory) = @_;
    my @given;
    push @given, name => $name if defined $name;
    push @given, description => $description if defined $description;
    push @given, quiesce => $quiesce ? 1 : 0 if defined $quiesce;
    push @given, memory => $memory ? 1 : 0 if defined $memory;
    return $self->_do('VM_CreateSnapshot', @given);
}

sub revert_to_snapshot   { my ($self) = @_; return $self->_do('VM_RevertToSnapshot') }
sub remove_all_snapshots { my ($self) = @_; return $self->_do('VM_RemoveAllSnapshots') }

# The older names of the C library's functions of that meaning.
sub revert_snapshot { my ($self) = @_; return $self->revert_to_snapshot }
sub delete_snapshot { my ($self) = @_; return $self->remove_all_snapshots }

sub get_pending_question {
    my ($self) = @_;
    return $self->_run(sub {
        my $question = VMware::VmPerl::Reply::child($self->_on('VM_GetQuestion'), 'question');
        return undef if !$question;    ## no critic: no question is a value
        my $choices = VMware::VmPerl::Reply::child($question, 'choices');
        return VMware::VmPerl::Question->_new(
            id      => VMware::VmPerl::Reply::number($question, 'id'),
            text    => VMware::VmPerl::Reply::text($question, 'text'),
            default => VMware::VmPerl::Reply::number($question, 'defaultChoice'),
            choices => [ $choices ? map { $_->{text} } VMware::VmPerl::Reply::children($choices, 'choice') : () ],
        );
    });
}

sub answer_question {
    my ($self, $question, $choice) = @_;
    return $self->_run(sub {
        my $known = Scalar::Util::blessed($question) && $question->isa('VMware::VmPerl::Question');
        my $id = $known ? $question->get_id : $question;
        for my $number ($id, $choice) {
            VMware::VmPerl::Object::_fail(INVALIDARGS => 'answer_question takes a question and the number of a choice')
                if !defined $number || ref $number || $number !~ /^[0-9]{1,9}$/;
        }
        $self->_on('VM_AnswerQuestion', id => $id, choice => $choice);
        return 1;
    });
}

# Reserved names: the server has no such operations, and nothing is sent, least of all a password.
for my $pair ([ set_runas_user => 'VM_SetRunAsUser' ], [ add_redo => 'VM_AddRedo' ], [ commit => 'VM_CommitRedo' ]) {
    my ($method, $op) = @$pair;
    no strict 'refs';
    *{$method} = sub {
        my ($self) = @_;
        return $self->_run(sub {
            $self->_connected;
            VMware::VmPerl::Object::_fail(NOTSUPPORTED => "the server has no operation $op");
        });
    };
}

1;

__END__

=head1 NAME

VMware::VmPerl::VM - one virtual machine

=head1 SYNOPSIS

    use VMware::VmPerl;
    use VMware::VmPerl::VM;
    use VMware::VmPerl::ConnectParams;

    my $vm = VMware::VmPerl::VM::new();
    if (!$vm->connect(VMware::VmPerl::ConnectParams::new(), '/vms/web/web.vmx')) {
        my ($number, $text) = $vm->get_last_error();
        die "cannot connect: $number: $text\n";
    }
    if ($vm->get_execution_state() == VM_EXECUTION_STATE_OFF) {
        $vm->start(VM_POWEROP_MODE_HARD) or die join(': ', $vm->get_last_error()), "\n";
    }
    undef $vm;    # disconnects

=head1 METHODS

A method that fails returns undef; C<get_last_error()> on the same object then has the reason. A method without a
value returns 1. C<disconnect>, C<is_connected>, C<get_last_error>, C<set_timeout> and C<get_timeout> are described in
L<VMware::VmPerl/OBJECTS>. Strings come as UTF-8 octets.

=head2 Connection

=over

=item new()

=item connect($params, $config [, $mks])

C<$config> is the path of the configuration file. No server object is needed. A machine that is not registered, or
that the user may not see, is -11 here. C<$mks> 1 asks for the console, which takes the right to operate the
machine. (The third argument is this project's addition.)

=item get_config_file_name()

The path given at connect.

=back

=head2 State and power

=over

=item get_execution_state()

C<VM_EXECUTION_STATE_ON>, C<_OFF>, C<_SUSPENDED>, C<_STUCK> (waits for an answer) or C<_UNKNOWN>.

=item start([$mode]), stop([$mode]), reset([$mode]), suspend([$mode])

C<$mode> is C<VM_POWEROP_MODE_HARD> (at once), C<_SOFT> (the guest is asked; the default) or C<_TRYSOFT> (soft, else
hard). C<start> also resumes a suspended machine. Not possible in this state: -8. The machine has a question: -16.
They return when the new state is reached.

=item get_uptime(), get_heartbeat(), get_tools_last_active(), get_pid(), get_id()

Seconds since power on; counter from the guest's Tools; 0 no Tools, 1 normal, 5 intermittent, 100 no heartbeat; process
id; number of the running machine. Of a machine that does not run they are 0.

=item get_capabilities()

The user's rights on the machine: sum of 4 read, 2 write, 1 execute.

=item get_remote_connections(), get_runas_user()

Number of consoles; the user that the machine runs as.

=item get_product_info($type)

C<VM_PRODINFO_PRODUCT>, C<_PLATFORM>, C<_BUILD>, C<_VERSION_MAJOR>, C<_VERSION_MINOR> or C<_VERSION_REVISION>. A product is
C<VM_PRODUCT_WS>, C<_GSX>, C<_ESX>, C<_SERVER> or C<_UNKNOWN>, a platform C<VM_PLATFORM_WINDOWS>, C<_LINUX>, C<_VMNIX> or
C<_UNKNOWN>.

=back

=head2 Configuration and guest

=over

=item get_config($key), set_config($key, $value)

A key of the configuration file, without regard to case. No such key: -10.

=item get_guest_info($key), set_guest_info($key, $value)

A guest variable, without C<guestinfo.> in front: C<ip>. Setting one takes a running machine, else -8.

=item get_resource($name), set_resource($name, $value)

A machine of this server has no resource settings of its own: -17. See L<VMware::VmPerl::Server/METHODS>.

=back

=head2 Devices

=over

=item connect_device($device), disconnect_device($device), device_is_connected($device)

Names as in the configuration file: C<floppy0>, C<ide1:0>, C<ethernet0>.

=back

=head2 Snapshots

=over

=item has_snapshot()

=item create_snapshot([$name, $description, $quiesce, $memory])

=item revert_to_snapshot(), remove_all_snapshots()

Also as C<revert_snapshot> and C<delete_snapshot>.

=back

=head2 Questions

=over

=item get_pending_question()

A L<VMware::VmPerl::Question>; undef and error 0 when there is none.

=item answer_question($question, $choice)

C<$choice> is the number of the choice, the first is 0.

=back

=head2 Reserved

C<set_runas_user>, C<add_redo> and C<commit> exist and fail with -17.

=head1 SEE ALSO

L<VMware::VmPerl>, L<VMware::VmPerl::Server>, L<VMware::VmPerl::Question>

=cut
